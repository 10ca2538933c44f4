"""How much to measure, and what all modules of the benchmark share."""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]

OUT: Final = ROOT / ".local" / "bench.json"

CORES: Final = sorted(os.sched_getaffinity(0))

ANSWER_S: Final = 3600.0
"""Longest wait for a warm-up or a round; beyond it the row says so and the bench goes on."""

NARROW: Final = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
}
"""Has torch and XLA use no more than AVX2; ``ours`` has our emitter do so as torch does."""

Spec = dict[str, Any]

Table = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    """How much to measure. ``rehearse`` runs the accelerator's section on the CPU, in small.

    A row that has not begun at ``until`` (of the monotonic clock) is left out.
    """

    quick: bool
    long: bool
    rehearse: bool = False
    most_rounds: int = 7
    answer_s: float = ANSWER_S
    until: float = math.inf

    @property
    def rounds(self) -> int:
        return 3 if self.quick else self.most_rounds

    @property
    def repeats(self) -> int:
        """Of what takes minutes."""
        return 1 if self.quick else 3

    @property
    def round_s(self) -> float:
        return 0.3 if self.quick else 1.0


def finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def has_avx512() -> bool:
    """Whether this CPU has AVX-512."""
    with suppress(OSError):
        return " avx512f " in Path("/proc/cpuinfo").read_text()
    return False


@contextmanager
def changed_environment(changes: Mapping[str, str]) -> Iterator[None]:
    """What a child inherits; multiprocessing hands our own environment on."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Failed(Exception):
    """A child could not do its work; the text says why, for the table."""
