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
    "trigonometry": "numpy",
    "expression": "numpy",
    "address": "",
    "document": "yaml",
    "fields": "",
    "spec": "pydantic pydantic_core",
    "sweep": "numpy",
    "problem": "numpy",
    "precheck": "numpy",
    "plan": "numpy",
    "starts": "torch numpy",
    "kernels": "torch",
    "model": "torch numpy",
    "blocks": "torch",
    "fit": "torch numpy",
    "affine": "torch numpy",
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
    return ast.parse((HOUSE / f"{module}.py").read_text(encoding="utf-8"))


def test_every_module_has_its_line_in_the_house() -> None:
    found = {path.stem for path in HOUSE.rglob("*.py")}
    assert found == {*ORDER, *DOORS}


def test_there_are_no_packages_within_the_package() -> None:
    assert [path.name for path in HOUSE.iterdir() if (path / "__init__.py").exists()] == []


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_from_the_lines_above_its_own(module: str) -> None:
    ours = {
        name.split(".")[1] for name in imports(tree_of(module)) if name.split(".")[0] == "polyfit"
    }
    assert ours - {"__version__"} <= set(ORDER[: ORDER.index(module)])


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
