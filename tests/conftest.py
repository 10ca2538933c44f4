"""What all tests share: a home and an environment of their own, servers and marks.

Two processes run the tests (`make test`). A server or a cluster is started once in each process
that needs it, so the tests of a file stay in one process (--dist loadfile).
"""

import atexit
import inspect
import os
import secrets
import shutil
import signal
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from servers import (
    ROOT,
    RayHead,
    S3Server,
    isolate,
    juicefs_s3,
    moto_s3,
    ray_head,
    rclone_s3,
    seaweedfs,
    swift_s3,
)

if TYPE_CHECKING:
    from commands import Command
    from places import Place

    from polyfit.run.reader import Run
    from polyfit.work.ray_executor import RayExecutor

HOME = tempfile.mkdtemp(prefix="pfhome", dir="/tmp")


def _isolate() -> None:
    """Replace the developer's environment before anything imports Ray or boto3, which read it then.

    One token for the whole session, because a process reads Ray's token once and keeps it: a test
    may start Ray in this process and then join a cluster.
    """
    isolate(os.environ)
    # A shell's background job ignores it, and what it starts too.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Else each of hundreds of processes would compile all of polyfit again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    os.environ["HOME"] = HOME
    os.environ["AWS_CONFIG_FILE"] = f"{HOME}/.aws/config"
    os.environ["AWS_SHARED_CREDENTIALS_FILE"] = f"{HOME}/.aws/credentials"
    os.environ["RAY_TMPDIR"] = HOME  # in /tmp/ray stands the address of the developer's cluster
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    # Kept for the next session: a kernel's name covers all that it was made from.
    os.environ["POLYFIT_CACHE"] = str(ROOT / ".local" / "test-kernels")


_isolate()
# A slow machine is no failure: nothing here is a test of time.
settings.register_profile("polyfit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("polyfit")
# Registered before Ray's own: the last registered runs first, and Ray shuts down in this home.
atexit.register(shutil.rmtree, HOME, ignore_errors=True)


# --- marks --------------------------------------------------------------------------------------

SERVERS = {"seaweed", "moto", "rclone", "juicefs", "swift", "ray_cluster"}
TESTS = str(ROOT / "tests")
STARTERS = {"subprocess", "servers", "local_s3", "multiprocessing", "concurrent", "nbclient"}
"""Modules that start processes: a test whose code uses one of them has the mark ``process``."""

LONGEST = ("test_command_submit.py", "test_readme.py")
"""Files, the longest as the last."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the marks ``server`` and ``process``, and put the files in order."""
    for item in items:
        assert isinstance(item, pytest.Function)
        if _servers(item):
            item.add_marker("server")
        if _starts_processes(item):
            item.add_marker("process")
    items[:] = _alternating(items)


def _alternating(items: list[pytest.Item]) -> list[pytest.Item]:
    """The tests file by file: one that starts processes, then one that does not, and so on.

    The workers of `make test` take the files in this order. Tests with processes wait much and
    the others do not, so that the cores are kept busy. The longest files are the first; then the
    wings that use Ray, so that what is left in the end is short.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    waiting: list[list[pytest.Item]] = []
    busy: list[list[pytest.Item]] = []
    for file in files.values():
        starts = any(item.get_closest_marker("process") for item in file)
        (waiting if starts else busy).append(file)
    place = {name: number for number, name in enumerate(LONGEST)}
    waiting.sort(key=lambda file: place.get(file[0].path.name, -1))
    pairs = zip_longest(reversed(waiting), busy)
    return [item for pair in pairs for file in pair if file for item in file]


def _servers(item: pytest.Function) -> set[str]:
    """The servers that a test needs, by the names of their fixtures."""
    chosen = {item.callspec.params.get("place")} if hasattr(item, "callspec") else set()
    return SERVERS & {*item.fixturenames, *chosen}


def _starts_processes(item: pytest.Function) -> bool:
    """Whether the code of a test, of its fixtures and of the functions of tests/ that they
    call uses one of ``STARTERS``."""
    fixtures = (getattr(item.module, name, None) for name in item.fixturenames)
    left = [item.function, *fixtures]
    seen = set()
    while left:
        function = inspect.unwrap(left.pop())
        if function in seen or not inspect.isfunction(function):
            continue
        seen.add(function)
        for name in _names(function.__code__):
            value = function.__globals__.get(name)
            home = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", "")
            if str(home).partition(".")[0] in STARTERS:
                return True
            if inspect.isfunction(value) and value.__code__.co_filename.startswith(TESTS):
                left.append(value)
    return False


def _names(code: CodeType) -> Iterator[str]:
    """All global names in a function, and in the functions within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


class _Guard:
    """An audit hook that refuses to start processes while it is on."""

    on = False

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.on and event in ("subprocess.Popen", "os.fork", "os.posix_spawn"):
            raise AssertionError(f"a test without the mark `process` starts one: {arguments}")


_guard = _Guard()
sys.addaudithook(_guard)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """In `make check` a test that starts a process all the same fails, and says so."""
    _guard.on = "not process" in item.config.getoption("-m")
    try:
        yield
    finally:
        _guard.on = False


# --- servers ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server that honours If-None-Match and If-Match."""
    with seaweedfs(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server that ignores conditions, and overwrites."""
    with rclone_s3(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server that honours conditions, and whose keys may not delete."""
    with moto_s3(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def juicefs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server that ignores conditions, drops metadata, and reads without an ETag."""
    with juicefs_s3(tmp_path_factory.mktemp("juicefs")) as server:
        yield server


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server that honours If-None-Match, and refuses If-Match."""
    with swift_s3(tmp_path_factory.mktemp("swift")) as server:
        yield server


@pytest.fixture(params=["folder", "seaweed", "moto", "rclone", "juicefs", "swift"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> "Place":
    """Each kind of store in turn, empty."""
    from places import place_called  # it imports boto3: only after ``_isolate``

    return place_called(request.param, request, tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def ray_cluster(seaweed: S3Server) -> Iterator[RayHead]:
    """Two CPU cores and two logical GPUs, whose node has the keys of ``seaweed``."""
    with ray_head(env=seaweed.env) as head:
        yield head


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with all packages of ours but polyfit."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    # Those that are installed in place are named by files like this one, which do not nest.
    (site / "ours.pth").write_text(sysconfig.get_path("purelib"))
    return str(folder / "bin" / "python")


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> "Command":
    """``polyfit`` in this process, with all of its handling of errors, in an empty folder."""
    from commands import Ended

    from polyfit.cli.app import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["polyfit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, out, err)

    return run


@pytest.fixture
def s3_keys(seaweed: S3Server, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """The keys of ``seaweed``, in this process too."""
    for name, value in seaweed.env.items():
        monkeypatch.setenv(name, value)
    return seaweed.env


@pytest.fixture
def sweep_path(tmp_path: Path) -> str:
    """The path of a spec of 500 fits in five shards."""
    from launch import SMALL

    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return str(path)


@pytest.fixture
def small_spec(tmp_path: Path) -> Path:
    """The file of a spec of 20 fits in two shards."""
    from commands import TEXT

    path = tmp_path / "spec.yaml"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """The finished run of that spec; not to be changed."""
    from commands import TEXT

    import polyfit
    from polyfit.spec.spec import Spec

    folder = str(tmp_path_factory.mktemp("store"))
    return polyfit.execute(Spec.parse(TEXT), store=folder, executor="inline")


@pytest.fixture
def messages() -> list[str]:
    """Lines for the user, as they come."""
    return []


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch, messages: list[str]) -> "RayExecutor":
    """An executor on a cluster of the nodes "one" and "other", on which nothing runs."""
    from launch import plant_nodes

    from polyfit.spec.schema import Resources
    from polyfit.store.address import StoreAddress
    from polyfit.work.cluster import Connection
    from polyfit.work.ray_executor import RayExecutor
    from polyfit.work.task import Job

    plant_nodes(monkeypatch, "one", "other")
    job = Job(StoreAddress("/nowhere"), "attempt")
    connection = Connection(own_cluster=False, opened=True)
    return RayExecutor(job, Resources(), connection, 600, messages.append)


@pytest.fixture
def code_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder for machine code, in a process that has none yet."""
    from engine_batches import forget

    folder = tmp_path / "cache"
    monkeypatch.setenv("POLYFIT_CACHE", str(folder))
    forget(monkeypatch)
    yield folder
    monkeypatch.undo()
    forget(monkeypatch)
