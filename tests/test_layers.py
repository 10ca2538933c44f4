"""The house: which wing and which module may import which, and what is loaded when.

Each rule is a function of a package's folder that lists its breaches. One test per rule finds
none in ours; another plants one in a copy and sees it found.
"""

import ast
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

import polyfit

PACKAGE = Path(polyfit.__file__).parent

# From the lowest wing to the highest: a wing imports only from lower wings, which are listed before
# it, and a module only from modules listed before it; also inside functions. Of third parties a
# module imports only what stands beside it.
WINGS = {
    "numerics": {
        "arrays": "numpy",
        "elementary": "numpy",
        "formula": "numpy",
        "grid": "numpy",
        "basis": "numpy",
        "design": "numpy",
        "reduction": "numpy",
        "observations": "numpy",
        "convergence": "numpy",
        "dtypes": "numpy",
    },
    "store": {
        "base": "",
        "subfolder": "",
        "object_file": "",
        "folder": "",
        "uri": "",
        "aws": "botocore",
        "credentials": "botocore",
        "s3_answers": "botocore mypy_boto3_s3",
        "s3_calls": "mypy_boto3_s3",
        "s3_errors": "botocore",
        "s3_client": "boto3 botocore mypy_boto3_s3",
        "s3": "botocore mypy_boto3_s3",
        "address": "botocore",
    },
    "spec": {
        "yaml_loader": "yaml",
        "document": "yaml",
        "names": "",
        "dates": "",
        "excerpt": "",
        "defects": "",
        "optimizer": "",
        "fit": "",
        "readers": "",
        "fields": "",
        "suggestions": "",
        "random_values": "numpy",
        "generators": "",
        "axis": "",
        "column": "numpy",
        "condition_language": "",
        "nullable": "numpy",
        "field_conditions": "",
        "exclusion": "numpy",
        "decision_diagram": "numpy",
        "parameter_grid": "numpy",
        "grid_overlap": "numpy",
        "disjoint": "numpy",
        "settings": "",
        "fit_and_sweep": "",
        "section": "pydantic pydantic_core",
        "record": "pydantic pydantic_core numpy",
        "storage": "pydantic pydantic_core",
        "schema": "pydantic pydantic_core",
        "rules": "",
        "source": "",
        "spec": "",
        "json_schema": "",
        "template": "",
        "sweep": "numpy",
        "rate": "numpy",
        "representatives": "numpy",
        "fit_table": "numpy",
        "start_check": "numpy",
        "causes": "numpy",
        "precheck": "numpy",
        "future": "",
        "descents": "numpy",
        "prediction": "numpy",
        "advice": "",
        "cost": "",
        "shards": "numpy",
        "engine_choice": "",
        "plan": "",
        "run_id": "",
    },
    "engine": {
        "penalty": "torch",
        "objective": "torch numpy",
        "batch": "torch numpy",
        "optimizer": "torch numpy",
        "newton": "torch numpy",
        "eager": "torch numpy",
        "trace": "torch",
        "emit": "numpy",
        "tape": "torch",
        "loops": "",
        "kernel": "",
        "llvm": "llvmlite",
        "cpu": "llvmlite torch numpy",
        "gpu": "cuda torch numpy",
        "symbolic": "numpy",
        "twister_kernel": "numpy",
        "initial": "torch numpy",
        "data_kernels": "numpy",
        "point_terms": "",
        "point_sums": "",
        "emitted_objective": "",
        "iteration_kernel": "torch",
        "lanes": "",
        "layout": "numpy",
        "compiled": "torch numpy",
        "fit": "torch",
        "affine_kernel": "",
        "affine": "torch numpy",
        "batch_data": "numpy",
        "screening": "numpy",
        "evaluation_kernel": "",
        "evaluation": "torch numpy",
    },
    "charts": {
        "theme": "altair",
        "marks": "altair",
        "groups": "altair",
        "histories": "altair",
        "fits": "altair",
        "edge": "altair",
        "coefficients": "altair",
        "timeline": "altair",
        "files": "altair vl_convert",
    },
    "run": {
        "clock": "",
        "parallel": "",
        "address": "",
        "keys": "",
        "manifest": "",
        "sealed": "",
        "ledger": "",
        "stored_spec": "",
        "run_receipt": "pydantic",
        "holder": "",
        "lease": "",
        "renewal": "",
        "last_attempt": "",
        "state": "pydantic",
        "listing": "",
        "resolve": "",
        "schema": "pyarrow numpy",
        "rows": "pyarrow numpy",
        "parquet": "pyarrow numpy",
        "shards": "pyarrow",
        "verify": "",
        "overlap": "numpy",
        "reuse": "pyarrow numpy",
        "reusable": "",
        "columns": "",
        "condition": "pyarrow",
        "top": "pyarrow",
        "groups": "polars",
        "scan": "polars pyarrow",
        "best": "polars",
        "history": "polars",
        "compare": "numpy polars pyarrow",
        "notebook": "",
        "stored_fit": "numpy",
        "grouping": "numpy",
        "digest": "polars pyarrow numpy",
        "histories": "polars pyarrow numpy",
        "fit_curves": "numpy",
        "siblings": "numpy",
        "timeline": "",
        "plot": "pyarrow polars numpy",
        "stored_rows": "numpy pandas polars pyarrow",
        "reader": "numpy polars",
        "several": "pyarrow polars",
        "export": "pyarrow",
    },
    "work": {
        "progress": "",
        "metrics": "ray",
        "usage": "",
        "throughput": "",
        "heartbeat": "",
        "driver_log": "",
        "batches": "torch numpy",
        "outcome": "numpy",
        "fitting": "torch numpy pyarrow",
        "storing": "torch",
        "task": "",
        "timeline": "",
        "cluster_address": "",
        "signals": "",
        "worker": "torch",
        "inline": "",
        "head_check": "grpc",
        "cluster": "ray",
        "ray_errors": "ray",
        "capacity": "",
        "nodes": "ray",
        "actor": "ray",
        "ray_executor": "ray",
        "workplace": "",
        "retry": "",
        "tally": "",
        "attempt": "",
        "run_address": "",
        "driver": "",
        "recompute": "torch numpy",
        "job_start": "",
        "job_store": "",
        "submission": "",
        "job_server": "ray",
        "job_follower": "",
        "job_end": "",
    },
    "show": {
        "text": "",
        "data": "",
        "log_line": "",
        "table": "rich",
        "markdown": "",
        "groups": "",
        "comparison": "",
        "equation": "",
        "curve": "numpy",
        "fit": "",
        "prediction": "",
        "plan": "",
        "summary": "",
        "rows": "",
        "runs": "",
        "receipt": "",
        "state": "",
        "verdict": "",
        "notebook": "IPython",
        "progress": "rich",
        "findings": "polars",
        "conclusion": "polars",
        "report_tables": "polars",
        "report_charts": "",
        "report": "jinja2",
    },
    "cli": {
        "options": "click",
        "output": "click",
        "error_handler": "click",
        "specs": "",
        "found": "",
        "report": "click",
        "plot": "click",
        "execution": "click",
        "init": "click",
        "schema": "click",
        "validate": "click",
        "plan": "click",
        "run": "click",
        "list": "click",
        "compare": "click",
        "watching": "",
        "status": "click",
        "results": "click",
        "show": "click",
        "verify": "click",
        "submit": "click",
        "app": "click",
    },
}
ENTRANCES = {"__init__", "__main__", "api"}  # of the package: they may import every module
ORDER = ["errors", *(f"{wing}.{module}" for wing in WINGS for module in WINGS[wing])]
FOR_TYPES = {
    "work.job_follower": {"ray"},
    "work.job_end": {"ray"},
    "cli.submit": {"ray"},
    "show.rows": {"pyarrow"},
    "show.groups": {"polars"},
    "show.comparison": {"polars"},
    "cli.results": {"polars"},
}  # only under TYPE_CHECKING


def sources(package: Path) -> dict[str, ast.Module]:
    """Every module by its dotted name within the package; a wing's ``__init__`` is ``wing``."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if len(parts) > 1 and parts[-1] == "__init__":
            parts = parts[:-1]
        found[".".join(parts)] = parsed(path.read_text(encoding="utf-8"))
    return found


@cache
def parsed(text: str) -> ast.Module:
    """One copy for all rules and copies of the package, which none of them changes."""
    return ast.parse(text)


def imports(tree: ast.AST, modules: set[str]) -> Iterator[str]:
    """The full name of every module that is imported anywhere in ``tree``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:  # a module of a package, or a name in a module
                full = f"{node.module}.{alias.name}"
                yield full if full.removeprefix("polyfit.") in modules else str(node.module)


def of_polyfit(tree: ast.AST, modules: set[str]) -> set[str]:
    """The modules of the package that ``tree`` imports, by their names within it."""
    names = {name for name in imports(tree, modules) if name.startswith("polyfit.")}
    return {name.removeprefix("polyfit.") for name in names}


def third_parties(tree: ast.AST) -> set[str]:
    first = {name.partition(".")[0] for name in imports(tree, set())}
    return first - {"polyfit"} - set(sys.stdlib_module_names)


def when_running(tree: ast.Module) -> ast.Module:
    """``tree`` without what stands under ``if TYPE_CHECKING``."""

    class Running(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
            self.generic_visit(node)
            hidden = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            return node.orelse if hidden else node

    return Running().visit(ast.parse(ast.unparse(tree)))  # type: ignore[no-any-return]


def exported(tree: ast.AST) -> list[str]:
    """The value of ``__all__``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


# --- the rules -------------------------------------------------------------------------------


def modules_without_a_line(package: Path) -> list[str]:
    """Every module stands in WINGS, and what stands there exists."""
    return sorted({*sources(package)} ^ {*ORDER, *WINGS, *ENTRANCES})


def imports_from_higher(package: Path) -> list[str]:
    """A wing imports from lower wings, a module from modules that are listed before it."""
    trees = sources(package)
    modules = set(trees)
    return [
        f"{module} imports {name}"
        for module in ORDER
        for name in sorted(of_polyfit(trees[module], modules))
        if name not in ORDER[: ORDER.index(module)]
    ]


def wings_that_import(package: Path) -> list[str]:
    """A wing's ``__init__`` imports nothing."""
    trees = sources(package)
    return [f"{wing} imports {name}" for wing in WINGS for name in imports(trees[wing], set())]


def wings_entered_past_their_all(package: Path) -> list[str]:
    """Other wings import those modules of a wing that its ``__all__`` names."""
    trees = sources(package)
    modules = set(trees)
    return [
        f"{module} imports {name}"
        for module in [*ORDER, *ENTRANCES]
        for name in sorted(of_polyfit(trees[module], modules))
        if (wing := name.partition(".")[0]) in WINGS
        and wing != module.partition(".")[0]
        and name.partition(".")[2] not in exported(trees[wing])
    ]


def modules_that_no_other_wing_needs(package: Path) -> list[str]:
    """What a wing's ``__all__`` names is imported by another wing."""
    trees = sources(package)
    modules = set(trees)
    used = {
        name
        for module in [*ORDER, *ENTRANCES]
        for name in of_polyfit(trees[module], modules)
        if name.partition(".")[0] != module.partition(".")[0]
    }
    named = {f"{wing}.{module}" for wing in WINGS for module in exported(trees[wing])}
    return sorted(named - used)


def third_parties_elsewhere(package: Path) -> list[str]:
    """A third party is imported only where WINGS says so, in a wing's ``__init__`` nowhere."""
    trees = sources(package)
    allowed = {f"{w}.{m}": {*WINGS[w][m].split()} for w in WINGS for m in WINGS[w]}
    return [
        f"{module} imports {name}"
        for module, tree in trees.items()
        for name in sorted(third_parties(tree))
        if name not in allowed.get(module, set()) | FOR_TYPES.get(module, set())
    ]


def third_parties_never_imported(package: Path) -> list[str]:
    """What WINGS allows a module to import is imported there."""
    trees = sources(package)
    return [
        f"{wing}.{module} does not import {name}"
        for wing, rooms in WINGS.items()
        for module, names in rooms.items()
        for name in names.split()
        if name not in third_parties(trees[f"{wing}.{module}"])
    ]


def imported_when_running(package: Path) -> list[str]:
    """What is imported for its types alone is not imported when running."""
    trees = sources(package)
    return [
        f"{module} imports {name}"
        for module, names in FOR_TYPES.items()
        for name in sorted(names & third_parties(when_running(trees[module])))
    ]


def classes_named_as_modules(package: Path) -> list[str]:
    """No exported name equals a module's."""
    trees = sources(package)
    names = {name.rpartition(".")[2] for name in trees}
    return [
        f"{module} has {node.name}"
        for module, tree in trees.items()
        for node in ast.iter_child_nodes(tree)
        if isinstance(node, ast.ClassDef) and node.name in names
    ]


RULES: list[Callable[[Path], list[str]]] = [
    modules_without_a_line,
    imports_from_higher,
    wings_that_import,
    wings_entered_past_their_all,
    modules_that_no_other_wing_needs,
    third_parties_elsewhere,
    third_parties_never_imported,
    imported_when_running,
    classes_named_as_modules,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule: Callable[[Path], list[str]]) -> None:
    assert rule(PACKAGE) == []


BREACHES = [
    # rule, the file that is changed, what is added to it, what is found
    (modules_without_a_line, "engine/attic.py", "", "engine.attic"),
    (modules_without_a_line, "attic/__init__.py", "", "attic"),
    (
        imports_from_higher,  # a higher wing
        "spec/plan.py",
        "import polyfit.run.rows",
        "spec.plan imports run.rows",
    ),
    (
        imports_from_higher,  # a later module, in a function
        "engine/trace.py",
        "def late():\n    from polyfit.engine.emit import Emitter",
        "engine.trace imports engine.emit",
    ),
    (
        imports_from_higher,  # a wing as a whole
        "run/rows.py",
        "from polyfit import store",
        "run.rows imports store",
    ),
    (
        wings_entered_past_their_all,
        "run/rows.py",
        "from polyfit.engine import tape",
        "run.rows imports engine.tape",
    ),
    (
        modules_that_no_other_wing_needs,
        "engine/__init__.py",
        "__all__ = ['tape']",
        "engine.tape",
    ),
    (wings_that_import, "run/__init__.py", "import json", "run imports json"),
    (third_parties_elsewhere, "spec/plan.py", "import torch.nn", "spec.plan imports torch"),
    (third_parties_elsewhere, "store/__init__.py", "import boto3", "store imports boto3"),
    (third_parties_elsewhere, "errors.py", "def f():\n    import ray", "errors imports ray"),
    (
        third_parties_never_imported,
        "numerics/formula.py",
        None,
        "numerics.formula does not import numpy",
    ),
    (imported_when_running, "show/rows.py", "import pyarrow", "show.rows imports pyarrow"),
    (classes_named_as_modules, "errors.py", "class errors: ...", "errors has errors"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "file", "added", "found"), BREACHES, ids=lambda v: getattr(v, "__name__", "")
)
def test_a_planted_breach_is_found(
    tmp_path: Path,
    rule: Callable[[Path], list[str]],
    file: str,
    added: str | None,
    found: str,
) -> None:
    package = tmp_path / "polyfit"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    path = package / file
    path.parent.mkdir(exist_ok=True)
    before = path.read_text(encoding="utf-8") if path.exists() and added is not None else ""
    path.write_text(f"{added or ''}\n{before}".strip("\n") + "\n", encoding="utf-8")
    assert found in rule(package)


def test_every_rule_has_a_planted_breach() -> None:
    assert {breach[0] for breach in BREACHES} == set(RULES)


# --- what is loaded when ---------------------------------------------------------------------

HEAVY = {"torch", "ray", "pyarrow", "pandas", "polars", "boto3", "pydantic"}


@pytest.mark.parametrize(
    "statement",
    [
        "import polyfit; polyfit.__version__",
        "import polyfit.cli.app",
        "sys.argv = ['polyfit', '--help']; from polyfit.cli.app import main; main()",
        "sys.argv = ['polyfit', '--version']; from polyfit.cli.app import main; main()",
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
