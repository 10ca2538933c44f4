"""Machine code of this CPU: stored, checked, made again, and missed with a clear message."""

import os
import re
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from engine_batches import forget, iteration
from engines import rows_of

from polyfit.engine import cpu, gpu
from polyfit.errors import ClusterError, Exit

TEXT = "fit: {degree: 1, steps: 20, points: 30}\nsweep: {seed: {count: 40}}"
PROGRAM = """
    import sys
    sys.path.insert(0, "tests")
    from engines import rows_of
    rows = rows_of(TEXT, "compiled")
    print(hash(str(rows.to_pylist())))
    from polyfit.engine import trace
    traced = trace.forward.cache_info().misses + trace.pullback.cache_info().misses
    print(traced, "sympy" in sys.modules)
"""


def program(cache: Path, body: str = PROGRAM) -> subprocess.Popen[str]:
    """A process of its own that computes ``TEXT``."""
    return subprocess.Popen(
        [sys.executable, "-c", f"TEXT = {TEXT!r}\n{textwrap.dedent(body)}"],
        env={**os.environ, "POLYFIT_CACHE": str(cache), "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> list[str]:
    output, errors = process.communicate(timeout=240)
    assert (process.returncode, errors) == (0, "")
    return output.splitlines()


def kept(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache.iterdir()}


def test_two_processes_at_once_make_the_same_and_a_third_traces_nothing(code_cache: Path) -> None:
    one, other = [answer(process) for process in [program(code_cache), program(code_cache)]]
    assert one[0] == other[0]
    files = kept(code_cache)
    assert {Path(name).suffix for name in files} == {".o"}
    assert code_cache.stat().st_mode & 0o777 == 0o700
    warm = answer(program(code_cache))
    assert warm == [one[0], "0 False"]
    assert kept(code_cache) == files


@pytest.mark.parametrize("damage", ["empty", "begun", "half", "but one", "flipped", "not ours"])
def test_damaged_code_is_made_again_without_a_word(
    damage: str,
    code_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    want = rows_of(TEXT, "compiled")
    files = kept(code_cache)
    for name, whole in files.items():
        half = len(whole) // 2
        bad = {
            "empty": b"",
            "begun": whole[:20],
            "half": whole[:half],
            "but one": whole[:-1],
            "flipped": whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :],
            "not ours": whole[32:],
        }[damage]
        (code_cache / name).write_bytes(bad)
    forget(monkeypatch)
    assert rows_of(TEXT, "compiled").equals(want)
    assert kept(code_cache) == files
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702])
def test_a_folder_that_others_can_write_is_not_used(
    mode: int, code_cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """They could put code there that we would run."""
    code_cache.mkdir()
    code_cache.chmod(mode)
    check_without_cache(capfd)
    assert kept(code_cache) == {}


@pytest.mark.parametrize("place", ["file", "file/cache"])
def test_what_cannot_be_a_folder_is_not_used(
    place: str,
    tmp_path: Path,
    code_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch(0o600)
    monkeypatch.setenv("POLYFIT_CACHE", str(tmp_path / place))
    check_without_cache(capfd)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_we_cannot_write_is_not_used(
    code_cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code_cache.mkdir(0o500)
    check_without_cache(capfd)


def test_a_full_disk_is_borne(code_cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A limit on the size of files stands for the disk: the same error comes from the same call."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        rows = rows_of(TEXT, "compiled")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert rows.equals(rows_of(TEXT, "compiled"))
    assert kept(code_cache) == {}
    assert capfd.readouterr() == ("", "")


def check_without_cache(capfd: pytest.CaptureFixture[str]) -> None:
    found = rows_of(TEXT, "compiled")
    assert found.equals(rows_of(TEXT, "eager"))
    assert capfd.readouterr() == ("", "")


def test_code_is_kept_in_the_users_cache_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POLYFIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cpu.cache_folder.__wrapped__
    assert folder() == tmp_path / "polyfit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder() == tmp_path / ".cache" / "polyfit"


@pytest.mark.parametrize("change", ["kernel", "lanes", "torch", "llvmlite", "processor", "sources"])
def test_a_file_is_named_by_all_that_decides_its_code(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = iteration("sse", "gd", torch.float32)
    same = iteration("sse", "gd", torch.float32)
    before, lanes = cpu._named(kernel, 16), 16
    assert cpu._named(same, 16) == before
    match change:
        case "kernel":
            kernel = iteration("sse", "gd", torch.float64)
        case "lanes":
            lanes = 32
        case "torch" | "llvmlite":
            monkeypatch.setattr(f"{change}.__version__", "9.9.9")
        case "processor":
            monkeypatch.setattr(cpu, "_host", lambda: ("x86-64-v2", ""))
        case "sources":
            monkeypatch.setattr(cpu, "_sources", lambda: "others")
    assert cpu._named(kernel, lanes) != before


def test_without_llvmlite_the_error_names_the_other_engine(
    code_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    with pytest.raises(ClusterError, match=r"llvmlite.*engine: eager") as caught:
        rows_of(TEXT, "compiled")
    assert caught.value.exit_code == Exit.CLUSTER
    with pytest.raises(ClusterError, match=r"llvmlite.*engine: eager"):
        gpu.ptx(iteration("sse", "gd", torch.float32), (9, 0))
    assert rows_of(TEXT, "eager").num_rows == 40


FORBIDDEN = """
    import ctypes, sys
    sys.path.insert(0, "tests")
    if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE: no memory becomes executable
        sys.exit(print("unable"))
    from engines import rows_of
    from polyfit.errors import ClusterError
    try:
        rows_of(TEXT, "compiled")
    except ClusterError as error:
        print(error)
"""


def test_memory_that_may_not_be_executed_is_told(code_cache: Path) -> None:
    (line,) = answer(program(code_cache, FORBIDDEN))
    if line == "unable":
        pytest.skip("this kernel cannot forbid executable memory")
    assert re.search(r"does not allow to run machine code.*use engine: eager", line)


def test_without_llvmlite_the_command_ends_with_6(tmp_path: Path) -> None:
    (tmp_path / "llvmlite.py").write_text("raise ImportError('no wheel for this machine')\n")
    (tmp_path / "spec.yaml").write_text(f"name: test\nengine: compiled\n{TEXT}\n")
    command = ["-m", "polyfit", "run", "spec.yaml", "--executor", "inline", "--store", "runs"]
    result = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == Exit.CLUSTER, result.stderr
    assert "no wheel for this machine" in result.stderr
    assert "engine: eager" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
