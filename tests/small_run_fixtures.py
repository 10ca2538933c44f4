"""The small run, made once, its rows, and a copy of it to be damaged."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from small_run import FITS, TEXT

import polyfit
from polyfit.run.reader import Run
from polyfit.spec.spec import Spec


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """48 fits in five shards; every second pair diverges at once."""
    folder = str(tmp_path_factory.mktemp("store"))
    return polyfit.execute(Spec.parse(TEXT), store=folder, executor="inline")


@pytest.fixture(scope="session")
def frame(run: Run) -> pd.DataFrame:
    """All rows, read by pandas alone."""
    files = sorted(Path(run.uri).glob("shards/*.parquet"))
    rows = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    assert len(rows) == FITS
    return rows


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Run:
    """The run once more, to be damaged."""
    shutil.copytree(run.uri, tmp_path / "copy")
    return Run.open(str(tmp_path / "copy"))
