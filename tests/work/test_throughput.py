"""How many fits a second a run stores, and how long the rest takes."""

import pytest

from polyfit.work.progress import Progress
from polyfit.work.throughput import Throughput


def test_time_before_the_first_actor_does_not_slow_a_run_down() -> None:
    throughput = Throughput()
    for second in range(60):
        throughput.add(second, Progress(8, 0, 800, 0, 0, actors=(0, 2)))
    throughput.add(60, Progress(8, 0, 800, 0, 0, actors=(1, 2)))
    throughput.add(64, Progress(8, 2, 800, 200, 0, actors=(2, 2)))
    assert throughput.fits_per_s == pytest.approx(200 / 5)  # since the last look without one
    assert throughput.left_s is None  # too early to tell
    throughput.add(69, Progress(8, 4, 800, 400, 0, actors=(2, 2)))
    assert throughput.left_s == pytest.approx(400 / (400 / 10))


def test_only_the_last_half_minute_counts() -> None:
    throughput = Throughput()
    throughput.add(0, Progress(8, 0, 100_000, 0, 0))
    assert (throughput.fits_per_s, throughput.left_s) == (None, None)
    for second in range(1, 101):
        throughput.add(second, Progress(8, 0, 100_000, 10 * second, 0))
    for second in range(101, 141):
        throughput.add(second, Progress(8, 0, 100_000, 1000 + 1000 * (second - 100), 0))
    assert throughput.fits_per_s == pytest.approx(1000)
