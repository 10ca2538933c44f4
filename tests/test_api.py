"""``import polyfit`` as a program or a notebook uses it."""

import doctest
import math
import os
import re
from pathlib import Path
from types import FunctionType
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from servers import ROOT

import polyfit
from polyfit.errors import SpecError
from polyfit.run.plot import Plots
from polyfit.run.stored_rows import StoredRows


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def small(**values: Any) -> polyfit.Run:
    return polyfit.sweep(**{"points": 20, "steps": 10, "executor": "inline", **values})


def axes(run: polyfit.Run) -> dict[str, list[Any]]:
    """The fields that vary, with their values."""
    frame = run.to_polars(["degree", "range_low", "range_high", "lr", "optimizer", "seed"])
    return {name: frame[name].unique().sort().to_list() for name in frame.columns}


def test_a_list_is_swept_and_a_value_is_not() -> None:
    run = small(degree=range(1, 4), range=[(-1, 1), ("-pi", "pi")], seed=np.arange(5), lr=0.001)
    assert len(run) == 3 * 2 * 5
    assert axes(run)["degree"] == [1, 2, 3]
    assert axes(run)["range_high"] == [1.0, np.pi]
    assert axes(run)["lr"] == [0.001]


@pytest.mark.parametrize(
    ("values", "fits"),
    [
        ({}, 1),
        ({"range": (-3, 3)}, 1),
        ({"range": ["0", "2 * pi"]}, 1),
        ({"range": [(-3, 3)]}, 1),
        ({"range": np.array([[-1.0, 1.0], [0.0, 2.0]])}, 2),
        ({"range": np.array([-1.0, 1.0])}, 1),
        ({"lr": {"of_limit": 0.9}}, 1),
        ({"lr": {"of_limit": [0.5, 0.9]}}, 2),
        ({"lr": {"logspace": [-4, -3, 4]}}, 4),
        ({"lr": np.logspace(-4, -3, 5)}, 5),
        ({"seed": {"count": 7}}, 7),
        ({"optimizer": {"momentum": {"beta": 0.5}}}, 1),
        ({"optimizer": ["gd", {"momentum": {"beta": 0.5}}]}, 2),
        ({"stop": {"gradient": 0.1}}, 1),
        ({"target": ["sin(x)", "cos(x)"], "basis": ("power", "chebyshev")}, 4),
        ({"zip": [{"optimizer": ["gd", "adam"], "lr": ["auto", 0.01]}], "seed": [1, 2]}, 4),
        ({"degree": [1, 2], "seed": [1, 2], "exclude": ["degree == 2 and seed == 1"]}, 3),
    ],
)
def test_what_is_an_axis(values: dict[str, Any], fits: int) -> None:
    assert len(small(**values)) == fits


def test_what_is_wrong_is_said_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        small(degree=[1, 99], basis="chebychev", range=(1,), shards=3)
    message = str(caught.value)
    assert "spec: sweep.degree" in message
    assert "did you mean 'chebyshev'?" in message
    assert "spec: sweep.range" in message or "spec: fit.range" in message
    assert (
        "polyfit.sweep: shards: unknown keyword (did you mean 'shard'?); allowed: target, "
        in message
    )


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"degres": [3]},
            "polyfit.sweep: degres: unknown keyword (did you mean 'degree'?); allowed: ",
        ),
        ({"learning_rate": 0.1}, "learning_rate: unknown keyword (did you mean 'lr'?); allowed: "),
        ({"fit": {}}, "polyfit.sweep: fit: unknown keyword; allowed: target, name, range, points"),
        (
            {"target": np.arcsin},
            "found the function arcsin; allowed: a formula in x as text, such as ",
        ),
        ({"target": ["x", math.sin]}, "or a list of them; did you mean 'sin(x)'?"),
        (
            {"target": np.sin(np.arange(9.0))},
            "target: found 9 values without a formula; allowed: a",
        ),
        ({"lr": math.sin}, "found a builtin_function_or_method; allowed: mappings, lists"),
    ],
)
def test_a_wrong_keyword_is_said_in_words_of_the_call(values: dict[str, Any], line: str) -> None:
    with pytest.raises(SpecError) as caught:
        small(**values)
    assert len(caught.value.problems) == 1
    assert line in str(caught.value)


def test_the_same_call_finds_its_own_run(capsys: pytest.CaptureFixture[str]) -> None:
    first = small(seed=[1, 2])
    assert small(seed=[1, 2], progress=True).uri == first.uri
    assert "is complete already" in capsys.readouterr().err


def test_nobody_watches_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    small()
    assert capsys.readouterr().err == ""


def test_the_module_says_what_there_is() -> None:
    assert dir(polyfit) == ["Plan", "Run", "Spec", "__version__", "execute", "sweep"]


@pytest.mark.parametrize(
    "call",
    [
        polyfit.sweep,
        polyfit.execute,
        polyfit.Spec.of,
        polyfit.Spec.load,
        polyfit.Spec.parse,
        polyfit.Plan.of,
    ],
    ids=lambda call: call.__qualname__,
)
def test_a_call_has_an_example_that_gives_what_it_says(call: Any, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("name: mine", encoding="utf-8")
    names = {name: getattr(polyfit, name) for name in dir(polyfit)}
    (example,) = doctest.DocTestFinder().find(call, globs={**names, "polyfit": polyfit})

    result = doctest.DocTestRunner().run(example)

    assert result.failed == 0
    assert result.attempted > 0


def methods(*kinds: type) -> list[str]:
    """The public methods of classes."""
    members = [member for kind in kinds for member in vars(kind).items()]
    return [name for name, it in members if isinstance(it, FunctionType) and name[0] != "_"]


def test_the_page_of_jobs_names_every_call() -> None:
    page = (ROOT / "jobs" / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[A-Za-z]+\.)*\w+)\(", page.partition("\n## Python\n")[2]))
    of_a_run = methods(polyfit.Run, StoredRows)

    assert {
        "sweep",
        "execute",
        "Spec.of",
        "Spec.load",
        "Spec.parse",
        "Plan.of",
        "Run.open",
    } <= named
    assert [name for name in of_a_run if f"run.{name}" not in named] == []
    assert [name for name in methods(Plots) if f"run.plot.{name}" not in named] == []


NOTEBOOK = """\
import polyfit
run = polyfit.sweep("exp(-x**2)", range=(-3, 3), degree=range(4), seed=range(5), executor="inline")
===
run
===
run.best(by="degree").select("degree", "loss")
===
run.plot.loss("degree")
"""


def test_a_sweep_in_a_notebook_shows_its_progress_its_table_and_its_chart(tmp_path: Path) -> None:
    cells = [nbformat.v4.new_code_cell(text) for text in NOTEBOOK.split("===\n")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": ROOT}}).execute(
        env=os.environ | {"IPYTHONDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}, cwd=tmp_path
    )
    swept, run, best, chart = (cell["outputs"] for cell in notebook.cells)
    shown = [output["data"] for output in swept if output["output_type"] == "display_data"]
    assert len(shown) == 1
    assert "100%, 20 of 20 fits" in shown[0]["text/plain"]
    assert '<progress value="20" max="20"' in shown[0]["text/html"]
    assert "<table" in run[-1]["data"]["text/html"]
    assert "243.211687" in best[-1]["data"]["text/html"]
    assert "vegaEmbed" in chart[-1]["data"]["text/html"]
