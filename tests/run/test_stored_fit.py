"""One stored fit, and what is said of a shard that does not hold it."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from shards import TWELVE_FITS, rewrite_shard, shard_path, stored_run

from polyfit.errors import DamagedRun
from polyfit.run.reader import Run

FITS = 12


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """12 fits in three shards; not to be changed."""
    return stored_run(TWELVE_FITS, tmp_path_factory.mktemp("store"))


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Run:
    """A copy of the run, to be damaged."""
    shutil.copytree(run.uri, tmp_path / "copy")
    return Run.open(str(tmp_path / "copy"))


@pytest.mark.parametrize("fit", range(FITS))
def test_a_stored_fit_is_its_row_and_its_object(run: Run, fit: int) -> None:
    stored = run.stored(fit)
    assert stored.row == run.row(fit) == run.to_arrow().slice(fit, 1).to_pylist()[0]
    assert stored.shard == run.plan.shard(fit // 5)
    assert (Path(run.uri) / stored.key).exists()
    assert stored.footer["fits"] == [stored.shard.start, stored.shard.stop]


def test_a_shard_under_anothers_key_is_an_error(copy: Run) -> None:
    shutil.copy(shard_path(copy, 0), shard_path(copy, 1))
    with pytest.raises(DamagedRun, match="does not hold fit 6 in its place"):
        copy.stored(6)


def test_a_shard_that_ends_before_the_fit_is_an_error(copy: Run) -> None:
    rewrite_shard(copy, 0, lambda rows: rows.slice(0, 2))
    with pytest.raises(DamagedRun, match="does not hold fit 3 in its place"):
        copy.stored(3)


def test_a_shard_without_a_footer_is_an_error(copy: Run) -> None:
    rows = pq.read_table(shard_path(copy, 0)).replace_schema_metadata({})
    pq.write_table(rows, shard_path(copy, 0))
    with pytest.raises(DamagedRun, match="its footer does not name a plan"):
        copy.stored(3)
