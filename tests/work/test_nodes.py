"""Nodes on which no actor starts: tried again, named, and left out."""

import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from launch import clean, elsewhere, quick
from limits import HANG_S
from servers import ROOT, ray_head, ray_node

from polyfit.errors import ClusterError, PolyfitError, StoreError
from polyfit.work import capacity, nodes
from polyfit.work.actor import Ready
from polyfit.work.ray_executor import ActorHandle, RayExecutor


def test_a_node_without_polyfit_is_named_and_the_run_goes_on_where_there_is_another(
    bare: str, sweep_path: str, tmp_path: Path
) -> None:
    with (
        ray_head(num_cpus=1, num_gpus=0, python=bare, dashboard=False) as head,
        ray_node(head, "127.0.0.2"),
    ):
        done = elsewhere(head.env, tmp_path, "run", sweep_path, "--store", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    missing = rf"no actor starts on node \S+ \({re.escape(socket.gethostname())}\): "
    missing += r"ModuleNotFoundError: No module named 'polyfit'; going on without it$"
    assert len(re.findall(missing, done.stderr, re.MULTILINE)) == 1
    assert "Traceback" not in done.stderr


def test_a_node_short_of_memory_is_tried_again_and_then_named(
    sweep_path: str, tmp_path: Path
) -> None:
    env = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
    done = subprocess.run(
        quick("run", sweep_path, "--store", str(tmp_path), "--executor", "ray"),
        env=clean(env), cwd=ROOT, text=True, capture_output=True, timeout=HANG_S, check=False,
    )  # fmt: skip
    assert done.returncode == 6, done.stderr
    cause = r"no actor starts on node \S+ \(.*\): killed for memory: Memory on the node .* limit"
    assert len(re.findall(rf"{cause} .*; trying again$", done.stderr, re.MULTILINE)) == 1
    assert re.search(f"^polyfit: {cause}", done.stderr, re.MULTILINE), done.stderr


FULL = """\
import os, sys
from collections import deque
from polyfit.errors import ClusterError
from polyfit.spec.schema import Resources
from polyfit.store.address import StoreAddress
from polyfit.work import capacity
from polyfit.work.cluster import connect
from polyfit.work.task import Job, Task

capacity.START_PAUSE_S = 0.1
connection = connect(None)
from polyfit.work.ray_executor import RayExecutor
try:
    with open(f"{os.environ['RAY_TMPDIR']}/fill", "wb", buffering=0) as file:
        while file.write(bytes(65536)):
            pass
except OSError:
    pass
job = Job(StoreAddress("/nowhere"), "attempt")
executor = RayExecutor(job, Resources(actors={"max": 1}), connection, 600, print)
try:
    for outcome in executor.run(deque([Task("compute", 0)])):
        assert outcome is None, outcome
except ClusterError as error:
    print(error)
"""


def test_a_node_whose_disk_is_full_is_named(tmp_path: Path) -> None:
    """Ray's temporary folder on a small disk of its own, in a mount namespace."""
    disk = tempfile.mkdtemp(prefix="pf", dir="/tmp")
    mount = f"mount -t tmpfs -o size=64m none {disk}"
    try:
        probe = subprocess.run(
            ["unshare", "--mount", "sh", "-c", mount], capture_output=True, check=False
        )
        if probe.returncode:
            pytest.skip("needs the right to make a mount namespace (root)")
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh",
             sys.executable, "-c", FULL],
            env=clean({"RAY_TMPDIR": disk}), cwd=tmp_path, text=True, capture_output=True,
            timeout=HANG_S, check=False,
        )  # fmt: skip
    finally:
        Path(disk).rmdir()
    messages = [line for line in done.stdout.splitlines() if line.startswith("no actor starts on")]
    assert len(messages) == 2, done.stdout + done.stderr
    for line in messages:
        cause = rf"node \S+ \(.*\): the disk of Ray's temporary folder {disk}/ray/\S+ is full: "
        assert re.search(cause, line), line
    assert messages[0].endswith("; trying again")


def test_what_may_pass_is_tried_again_with_growing_pauses_and_reported_once(
    two_nodes: RayExecutor, messages: list[str]
) -> None:
    pauses = []
    for _ in range(nodes.MAX_STARTS - 1):
        assert two_nodes._wanted(100, []) in (2, 4)
        two_nodes._note_failure("one", ClusterError("killed"), False, time.monotonic())
        trouble = two_nodes._failures._failures["one"]
        pauses.append(trouble.until - trouble.at)
        assert two_nodes._wanted(100, []) == 2, "an actor is wanted where none starts"
        # One that was started before that failure says nothing more.
        two_nodes._note_failure("one", ClusterError("killed"), False, trouble.at - 1)
    assert pauses == pytest.approx([1.0, 2.0, 4.0])
    assert messages == ["no actor starts on node one (host): killed; trying again"]
    two_nodes._note_failure("one", ClusterError("killed"), False, time.monotonic())
    assert messages[1:] == ["no actor starts on node one (host): killed; going on without it"]
    assert two_nodes._failures._failures["one"].until == float("inf")


def test_a_node_that_has_held_an_actor_is_tried_for_as_long_as_the_run_waits(
    two_nodes: RayExecutor,
) -> None:
    two_nodes._note_ready(ActorHandle(None, None), Ready("id-one", "cpu"))
    for _ in range(20):
        two_nodes._note_failure("one", ClusterError("killed"), False, time.monotonic())
    trouble = two_nodes._failures._failures["one"]
    assert trouble.until - trouble.at == pytest.approx(capacity.MAX_START_PAUSE_S)
    two_nodes._note_ready(ActorHandle(None, None), Ready("id-one", "cpu"))
    assert two_nodes._failures._failures == {}


@pytest.mark.parametrize(
    ("errors", "kind"),
    [((ClusterError, ClusterError), ClusterError), ((StoreError, StoreError), StoreError),
     ((StoreError, ClusterError), ClusterError)],
)  # fmt: skip
def test_where_no_node_can_start_an_actor_the_run_ends_with_every_cause(
    two_nodes: RayExecutor, errors: tuple[type[PolyfitError], ...], kind: type[PolyfitError]
) -> None:
    for address, error in zip(("one", "other"), errors, strict=True):
        assert two_nodes._wanted(100, []) > 0
        two_nodes._note_failure(address, error(f"cause {address}"), True, time.monotonic())
    with pytest.raises(kind) as caught:
        two_nodes._wanted(100, [])
    assert type(caught.value) is kind
    assert str(caught.value).splitlines() == [
        "no actor starts on node one (host): cause one",
        "no actor starts on node other (host): cause other",
    ]
