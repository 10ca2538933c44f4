"""One shard in the store: written once, the same bytes each time, inspected where it is there."""

import dataclasses
from pathlib import Path

import pytest
import torch

from polyfit.errors import DamagedRun
from polyfit.run.keys import shard_key
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec
from polyfit.store.folder import FolderStore
from polyfit.work.storing import inspect_shard, provenance, run_shard

CPU = torch.device("cpu")


TEXT = (
    "name: test\nshard: 8\nfit: {steps: 12, points: 40}\n"
    "sweep: {degree: [1, 4], lr: [auto, 100.0], seed: {count: 5}}"
)


@pytest.fixture
def plan() -> Plan:
    return Plan.of(Spec.parse(TEXT))


def test_a_stored_shard_has_a_receipt(plan: Plan, tmp_path: Path) -> None:
    store = FolderStore(str(tmp_path))
    receipt = run_shard(plan, 1, store, CPU)
    data = store.get(shard_key(plan, 1))
    assert (receipt.shard, receipt.rows, receipt.bytes) == (1, 8, len(data))
    assert sum(receipt.statuses.values()) == 8
    assert set(receipt.statuses) == {"completed", "diverged"}


def test_the_same_plan_gives_the_same_bytes(plan: Plan, tmp_path: Path) -> None:
    one, other = FolderStore(str(tmp_path / "a")), FolderStore(str(tmp_path / "b"))
    assert run_shard(plan, 0, one, CPU) == run_shard(plan, 0, other, CPU, threads=2)
    assert one.get(shard_key(plan, 0)) == other.get(shard_key(plan, 0))


def test_a_shard_already_there_is_inspected_and_not_rewritten(plan: Plan, tmp_path: Path) -> None:
    store = FolderStore(str(tmp_path))
    first = run_shard(plan, 2, store, CPU)
    written = (tmp_path / shard_key(plan, 2)).stat().st_mtime_ns
    assert run_shard(plan, 2, store, CPU) == first
    assert inspect_shard(plan, 2, store) == first
    assert (tmp_path / shard_key(plan, 2)).stat().st_mtime_ns == written


def test_another_shard_under_a_shards_key_is_refused(plan: Plan, tmp_path: Path) -> None:
    store = FolderStore(str(tmp_path))
    run_shard(plan, 0, store, CPU)
    store.put(shard_key(plan, 1), store.get(shard_key(plan, 0)))
    with pytest.raises(DamagedRun, match="of other shards"):
        run_shard(plan, 1, store, CPU)


def test_a_truncated_shard_is_refused(plan: Plan, tmp_path: Path) -> None:
    store = FolderStore(str(tmp_path))
    run_shard(plan, 0, store, CPU)
    store.put(shard_key(plan, 0), store.get(shard_key(plan, 0))[:-10])
    with pytest.raises(DamagedRun, match="cannot be read"):
        inspect_shard(plan, 0, store)


@pytest.mark.slow
def test_shards_do_not_depend_on_their_size(plan: Plan, tmp_path: Path) -> None:
    """The same fits in shards of another size have the same rows."""
    import pyarrow.parquet as pq

    tables = []
    for size in (8, 3):
        other = dataclasses.replace(plan, shard_fits=size)
        store = FolderStore(str(tmp_path / str(size)))
        rows = []
        for number in range(other.shards):
            run_shard(other, number, store, CPU)
            path = tmp_path / str(size) / shard_key(other, number)
            rows += pq.ParquetFile(path).read().to_pylist()
        tables.append(rows)
    assert tables[0] == tables[1]
    assert [row["fit"] for row in tables[0]] == list(range(plan.fits))


@pytest.mark.parametrize(
    ("change", "device"),
    [
        ("engine: compiled", "cpu"),
        ("engine: affine\nrecord: none", "cpu"),
        ("engine: eager", "cuda"),
        ("engine: compiled\nfit: {optimizer: newton}", "cuda"),
        ("engine: compiled\nsweep: {optimizer: [gd, newton]}", "cuda"),
    ],
)
def test_rows_made_on_a_gpu_count_as_a_cpus_where_kernels_make_all(
    change: str, device: str
) -> None:
    plan = Plan.of(Spec.parse(f"name: test\n{change}\n"))
    assert provenance(plan, torch.device("cuda"))["device"] == device
    assert provenance(plan, CPU)["device"] == "cpu"
