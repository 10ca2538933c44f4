"""What a folder does besides the contract of all stores."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from places import OPERATIONS, error_message

from polyfit.errors import DamagedRun, StoreError
from polyfit.store.base import Store
from polyfit.store.folder import FolderStore


def test_a_write_that_breaks_off_leaves_nothing_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        FolderStore(str(tmp_path)).create("shards/1", b"rows")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("operation", [OPERATIONS["create"], OPERATIONS["put"]])
def test_a_folder_that_cannot_be_written_is_named(
    operation: Callable[[Store], object], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    text = error_message(lambda: operation(FolderStore(str(tmp_path / "file" / "runs"))))
    assert text.startswith(f"folder {tmp_path}/file/runs: ")
    assert f"Not a directory: {tmp_path}/file is no folder" in text
    (tmp_path / "link").symlink_to("gone")
    text = error_message(lambda: operation(FolderStore(str(tmp_path / "link" / "runs"))))
    assert f"{tmp_path}/link, a link to gone, is no folder" in text


def test_a_folder_where_a_file_belongs_is_named(tmp_path: Path) -> None:
    store = FolderStore(str(tmp_path))
    (tmp_path / "shards" / "1").mkdir(parents=True)
    assert not store.create("shards/1", b"rows")
    for operation in (store.get, store.get_with_age, lambda key: store.put(key, b"rows")):
        with pytest.raises(DamagedRun, match=rf"^{tmp_path}/shards/1 is a folder, and a file"):
            operation("shards/1")


def test_a_folder_that_cannot_be_made_is_said_to_be_one() -> None:
    store = FolderStore("/proc/none")
    with pytest.raises(StoreError, match="folder /proc/none: it cannot be made: No such file"):
        store.put("plan.json", b"{}")
