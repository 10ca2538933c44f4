"""What a run shows on stderr while it is at work."""

import io
import sys
from dataclasses import replace

import pytest
from limits import wait_for

from polyfit.cli.output import write_line
from polyfit.show.progress import ProgressDisplay
from polyfit.work import heartbeat
from polyfit.work.progress import Progress


class Log:
    """What a run shows on stderr, with a clock of the test's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, terminal: bool = False) -> None:
        self.time, self.stderr = 1000.0, io.StringIO()
        self.stderr.isatty = lambda: terminal  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stderr", self.stderr)
        self.display = ProgressDisplay("small", write_line, lambda: self.time)

    @property
    def lines(self) -> list[str]:
        """Without their times."""
        return [line.split("Z small: ")[1] for line in self.stderr.getvalue().splitlines()]


def test_a_log_gets_a_line_at_least_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says for how long nothing has happened, so that a run that hangs is seen."""
    log = Log(monkeypatch)
    log.display.show_message("begun")
    for second in range(60):
        log.time += 1
        log.display.update(Progress(3, 0, 30, 0, 0, stage="starting Ray", quiet_s=second + 1.0))
    assert len(log.lines) == 7
    assert log.lines[1] == (
        "0 of 30 fits, 0 of 3 shards stored; starting Ray, nothing new for 10 s"
    )
    assert log.lines[3] == "0 of 30 fits, 0 of 3 shards stored; starting Ray, nothing new for 30 s"


def test_a_log_says_at_once_that_all_is_stored_and_has_no_line_per_shard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log(monkeypatch)
    log.display.show_message("begun")
    for done in range(1, 31):
        log.time += 0.5
        now = Progress(30, done, 30, done, 0, stage="fitting", fits_per_s=2.04, left_s=5.0)
        log.display.update(now)
        log.display.update(now)
    assert log.lines[1:] == [
        "20 of 30 fits, 20 of 30 shards stored; 2 fits/s, 5 s left, fitting",
        "30 of 30 fits, 30 of 30 shards stored",
    ]


def test_lines_on_a_terminal_have_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch, terminal=True)
    log.display.show_message("begun")
    assert log.stderr.getvalue() == "small: begun\n"
    with log.display:
        log.display.update(Progress(3, 0, 30, 0, 0, stage="joining [::1]:6379", quiet_s=12.0))
    assert "joining [::1]:6379, nothing new for 12 s" in log.stderr.getvalue()


def test_a_line_says_how_fast_it_goes_and_what_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch)
    log.display.update(Progress(8, 0, 8000, 0, 0, stage="starting Ray"))
    for second in range(1, 12):
        log.time += 1
        progress = Progress(8, 1, 8000, 100 * second, 1, stage="fitting", actors=(2, 3), diverged=7)
        log.display.update(replace(progress, fits_per_s=100.4, left_s=70.3))
    assert log.lines[-1] == (
        "1,000 of 8,000 fits, 1 of 8 shards stored, 1 shard failed, 7 fits diverged, "
        "2 of 3 actors ready; 100 fits/s, 70 s left, fitting"
    )


def test_a_terminal_shows_what_happens_on_two_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    log = Log(monkeypatch, terminal=True)
    with log.display:
        log.display.update(Progress(8, 2, 800, 200, 0, stage="fitting"))
        log.time += 10
        now = Progress(8, 4, 800, 400, 0, stage="fitting", actors=(2, 2), diverged=3)
        log.display.update(replace(now, fits_per_s=20.0, left_s=20.0))
    shown = log.stderr.getvalue()
    assert "50%" in shown
    assert "400 of 800 fits" in shown
    assert "20 fits/s" in shown
    assert "20 s left" in shown
    facts = "fitting, 4 of 8 shards stored, 3 fits diverged, 2 of 2 actors ready, 10 s so far"
    assert facts in shown


def test_reading_many_results_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "TICK_S", 0.001)
    log = Log(monkeypatch)
    with log.display.reading_results():
        wait_for(lambda: log.stderr.getvalue(), "a line")
    assert log.lines[0] == "reading the results"
