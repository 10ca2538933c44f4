"""The house: which module may import which, and what is loaded when."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import polyfit

HOUSE = Path(polyfit.__file__).parent

# In order: a module imports, also inside its functions, only from the lines above its own, and
# of third parties only what stands beside it.
ROOMS = {
    "errors": "",
    "elementary": "numpy",
    "expression": "numpy",
    "address": "",
    "document": "yaml",
    "fields": "",
    "spec": "pydantic pydantic_core",
    "sweep": "numpy",
    "problem": "numpy",
    "precheck": "numpy",
    "plan": "numpy",
    "engine.status": "",
    "engine.trace": "torch",
    "engine.emit": "numpy",
    "engine.kernel": "",
    "engine.cpu": "llvmlite torch numpy",
    "engine.gpu": "llvmlite cuda torch numpy",
    "engine.tape": "torch",
    "engine.points": "",
    "engine.symbol": "numpy",
    "engine.initial": "torch numpy",
    "engine.data": "numpy",
    "engine.model": "torch numpy",
    "engine.outcome": "torch numpy",
    "engine.iteration": "torch",
    "engine.compiled": "torch numpy",
    "engine.eager": "torch numpy",
    "engine.newton": "torch numpy",
    "engine.fit": "torch numpy",
    "engine.affine": "torch numpy",
    "engine.setup": "numpy",
    "engine.screening": "numpy",
    "engine.evaluation": "torch",
    "engine.evaluate": "torch numpy",
    "rows": "pyarrow numpy",
    "aws": "botocore",
    "answers": "botocore mypy_boto3_s3",
    "store": "boto3 botocore mypy_boto3_s3",
    "ledger": "",
    "lease": "",
    "heartbeat": "",
    "reuse": "pyarrow numpy",
    "worker": "torch numpy pyarrow",
    "dispatch": "grpc ray torch",
    "results": "pyarrow numpy pandas",
    "driver": "",
    "show": "torch numpy",
    "cli": "click rich",
}
ORDER = list(ROOMS)
WINGS = {name.split(".")[0] for name in ORDER if "." in name}
DOORS = {"__init__", "__main__"}  # they open onto every room
FOR_TYPES = {"cli": {"pyarrow"}}  # only under TYPE_CHECKING


def imports(tree: ast.AST) -> Iterator[str]:
    """The full name of every module that is imported anywhere in ``tree``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "polyfit":
                yield from (f"polyfit.{alias.name}" for alias in node.names)
            elif node.module == "polyfit.engine":
                yield from (f"polyfit.engine.{alias.name}" for alias in node.names)
            else:
                yield str(node.module)


def without_types(tree: ast.AST) -> ast.AST:
    """``tree`` without what stands under ``if TYPE_CHECKING``."""

    class Running(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
            self.generic_visit(node)
            hidden = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            return node.orelse if hidden else node

    return Running().visit(tree)  # type: ignore[no-any-return]


def tree_of(module: str) -> ast.AST:
    return ast.parse((HOUSE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))


def ours_in(module: str) -> set[str]:
    """The modules of the house that a module imports, or names of them."""
    found = set()
    for name in imports(tree_of(module)):
        first, _, rest = name.partition(".")
        if first == "polyfit":
            parts = rest.split(".")
            found.add(".".join(parts[: 2 if parts[0] in WINGS else 1]))
    return found


def test_every_module_has_its_line_in_the_house() -> None:
    found = {
        ".".join(path.relative_to(HOUSE).with_suffix("").parts)
        for path in HOUSE.rglob("*.py")
        if path.name != "__init__.py" or path.parent == HOUSE
    }
    assert found == {*ORDER, *DOORS}


def test_the_wings_are_the_packages_within_the_package() -> None:
    assert {path.name for path in HOUSE.iterdir() if (path / "__init__.py").exists()} == WINGS


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_from_the_lines_above_its_own(module: str) -> None:
    assert ours_in(module) - {"__version__"} <= set(ORDER[: ORDER.index(module)])


@pytest.mark.parametrize("module", [*ORDER, *DOORS])
def test_a_third_party_package_appears_only_in_its_rooms(module: str) -> None:
    others = {
        name.split(".")[0] for name in imports(tree_of(module)) if not name.startswith("polyfit.")
    }
    allowed = {*ROOMS.get(module, "").split(), *FOR_TYPES.get(module, ())}
    assert others - set(sys.stdlib_module_names) <= allowed


@pytest.mark.parametrize("module", FOR_TYPES)
def test_what_is_imported_for_types_is_not_imported_when_running(module: str) -> None:
    running = {name.split(".")[0] for name in imports(without_types(tree_of(module)))}
    assert not running & FOR_TYPES[module]


@pytest.mark.parametrize("module", ORDER)
def test_no_exported_name_equals_a_modules(module: str) -> None:
    exported = {
        node.name
        for node in ast.iter_child_nodes(tree_of(module))
        if isinstance(node, ast.ClassDef)
    }
    assert not exported & {*ORDER, *DOORS}


HEAVY = {"torch", "ray", "pyarrow", "pandas", "boto3", "pydantic"}


@pytest.mark.parametrize(
    "statement",
    [
        "import polyfit; polyfit.__version__",
        "import polyfit.cli",
        "sys.argv = ['polyfit', '--help']; from polyfit.cli import main; main()",
        "sys.argv = ['polyfit', '--version']; from polyfit.cli import main; main()",
    ],
    ids=["import", "cli", "help", "version"],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(statement: str) -> None:
    code = (
        "import sys\n"
        f"try:\n    exec({statement!r})\n"
        "except SystemExit as end:\n    assert not end.code\n"
        f"loaded = sorted({HEAVY!r} & set(sys.modules))\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True)
