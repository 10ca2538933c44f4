"""What a run does, and since when nothing came, is reported while its own thread is busy."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from limits import HANG_S

from polyfit.errors import RunHeld, StoreError
from polyfit.run import ledger
from polyfit.run.keys import STATUS
from polyfit.run.ledger import Ledger
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec
from polyfit.store.folder import FolderStore
from polyfit.work import heartbeat
from polyfit.work.heartbeat import Heartbeat, Ticker
from polyfit.work.progress import QUIET_AFTER_S, Progress

PLAN = Plan.of(Spec.parse("name: small\nshard: 10\nfit: {steps: 9}\nsweep: {seed: {count: 30}}\n"))


class World:
    """A heartbeat with a clock and a ticker of the test's own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = 1000.0
        self.signal: int | None = None
        self.seen: list[Progress] = []
        self.look: Callable[[], None] = lambda: None
        clock = SimpleNamespace(monotonic=lambda: self.time)
        monkeypatch.setattr(heartbeat, "time", clock)
        for module in (heartbeat, ledger):
            monkeypatch.setattr(module, "now", lambda: f"at {self.time:g}")
        monkeypatch.setattr(heartbeat, "Ticker", self._ticker)
        self.store = FolderStore(str(folder))
        self.ledger = Ledger(self.store, PLAN)
        self.heartbeat = Heartbeat(PLAN, "one", self.seen.append, lambda: self.signal)

    def _ticker(self, look: Callable[[], None]) -> Any:
        self.look = look
        return SimpleNamespace(close=lambda: None, check=lambda: None)

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.time += 1.0
            self.look()

    def status(self) -> dict[str, Any]:
        found = json.loads(self.store.get(STATUS))
        assert isinstance(found, dict)
        return found


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_a_ticker_looks_until_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "TICK_S", 0.001)
    looked, threads = threading.Semaphore(0), set[str]()

    def look() -> None:
        threads.add(threading.current_thread().name)
        looked.release()

    ticker = Ticker(look)
    for _ in range(3):
        assert looked.acquire(timeout=HANG_S)
    ticker.close()
    ticker.check()
    assert threads == {"heartbeat"}
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}


def test_what_a_look_raises_is_raised_where_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heartbeat, "TICK_S", 0.001)

    def look() -> None:
        raise BrokenPipeError("nobody reads")

    ticker = Ticker(look)
    ticker._thread.join(HANG_S)
    with pytest.raises(BrokenPipeError, match="nobody reads"):
        ticker.check()
    ticker.close()


def test_the_status_is_renewed_every_ten_seconds_while_nothing_happens(world: World) -> None:
    world.heartbeat.set_stage("fitting")
    world.heartbeat.write_status(world.ledger, lambda: None)
    renewed = [world.status()["updated_at"]]
    for _ in range(35):
        world.wait(1)
        stands = world.status()
        assert stands["state"] == "running"
        if stands["updated_at"] != renewed[-1]:
            renewed.append(stands["updated_at"])
    assert len(renewed) == 1 + 1 + 35 // QUIET_AFTER_S  # at once, with its stage, and from then on


def test_a_beat_says_since_when_nothing_has_happened(world: World) -> None:
    """A run that hangs beats too."""
    world.heartbeat.write_status(world.ledger, lambda: None)
    world.heartbeat.set_stage("fitting")
    world.wait(1)
    world.wait(84)
    assert (world.seen[-1].stage, world.seen[-1].quiet_s) == ("fitting", 84.0)
    assert world.status()["last_event_at"] == "at 1001"
    world.heartbeat.update(Progress(3, 1, 30, 10, 0))
    assert (world.seen[-1].quiet_s, world.seen[-1].shards_done) == (0.0, 1)
    world.wait(10)
    assert world.status()["last_event_at"] == "at 1085"


def test_another_stage_is_reported_and_written_with_the_next_tick(world: World) -> None:
    stage = ["compiling on 1 of 2 actors"]
    world.heartbeat.write_status(world.ledger, lambda: None)
    world.heartbeat.set_stage(lambda: stage[0])
    world.wait(1)
    assert world.status()["stage"] == world.seen[-1].stage == "compiling on 1 of 2 actors"
    world.wait(5)
    stage[0] = "fitting"
    world.wait(1)
    assert world.status()["stage"] == world.seen[-1].stage == "fitting"
    assert world.seen[-1].quiet_s == 0.0


def test_the_status_is_written_only_while_the_run_is_ours(world: World, tmp_path: Path) -> None:
    world.wait(20)
    assert list(tmp_path.iterdir()) == []
    held = [True]

    def check() -> None:
        if not held[0]:
            raise RunHeld("another driver has taken over")

    world.heartbeat.write_status(world.ledger, check)
    world.wait(20)
    before = world.status()
    held[0] = False
    world.wait(20)
    assert world.status() == before
    assert world.seen[-1].quiet_s > 0


def test_a_status_that_cannot_be_written_ends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: FolderStore, key: str, data: bytes) -> None:
        raise StoreError("planted")

    with monkeypatch.context() as broken:
        broken.setattr(FolderStore, "put", refuse)
        world.heartbeat.write_status(world.ledger, lambda: None)
        world.wait(20)
        with pytest.raises(StoreError):
            world.heartbeat.finish("ended")
    world.heartbeat.finish("complete")
    assert world.status()["state"] == "complete"


def test_a_signal_that_came_late_is_reported_at_the_end(world: World) -> None:
    world.wait(1)
    world.signal = 15
    world.heartbeat.finish("complete")
    assert [progress.signal for progress in world.seen] == [None, 15]


def test_a_beat_says_how_fast_fits_are_stored(world: World) -> None:
    world.heartbeat.set_stage("fitting")
    world.wait(1)
    assert (world.seen[-1].fits_per_s, world.seen[-1].left_s) == (None, None)
    world.wait(9)
    world.heartbeat.update(Progress(3, 1, 30, 10, 0))
    rate = world.seen[-1].fits_per_s
    assert rate is not None
    assert world.seen[-1].left_s == pytest.approx(20 / rate)
