"""Tables on the terminal, and every number as JSON."""

import json
import math
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.race import Contender, Row, describe_failure
from bench.settings import CORES, OUT, Failed, Table


@dataclass(slots=True)
class Report:
    """Tables on the terminal as they come, and everything as JSON."""

    machine: Table
    sections: dict[str, Table] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)

    def head(self, section: str, title: str) -> None:
        """Begin a table."""
        self.sections.setdefault(section, {})
        print(f"\n{title}\n{'─' * min(len(title), 100)}", flush=True)

    def line(self, text: str) -> None:
        """A line of a table."""
        print(text, flush=True)

    def fact(self, section: str, name: str, found: Table) -> None:
        """Keep numbers for the JSON."""
        self.sections.setdefault(section, {})[name] = found

    def keep(self, section: str, rows: Mapping[str, Row]) -> None:
        """Keep all that a race measured."""
        for row in rows.values():
            self.fact(section, row.name, row.as_json())

    def number(self, name: str, value: float) -> None:
        """A ratio, told plainly."""
        if math.isfinite(value):
            self.ratios[name] = value
            print(f"  {name}: {value:,.{0 if value >= 1000 else 1 if value >= 10 else 3}f}x")

    def ratio(self, name: str, rows: Mapping[str, Row], of: Contender, to: Contender) -> None:
        """The ratio of two rates of one race, where both are there."""
        self.number(name, rows[of.name].times(rows[to.name]))

    def rates(
        self, section: str, title: str, rows: Mapping[str, Row], base: str, same: bool = True
    ) -> None:
        """A race as a table; ``base`` is the row that the others are multiples of.

        ``same`` tells that the rows do the same fits, so that their coefficients can be compared.
        """
        self.head(section, title)
        self.keep(section, rows)
        width = max(len(name) for name in rows) + 2
        line = f"{{:<{width}}}" + "{:>14}{:>12}{:>8}{:>14}{:>10}{:>10}  {}"
        print(line.format("one core", "per second", "multiple", "spread", "all cores",
                          "memory", "off by", ""))  # fmt: skip
        reference = rows[base]
        for row in rows.values():
            if row.failed:
                print(f"{row.name:<{width}}{row.failed}")
                continue
            cells = [
                _format_number(row.rate),
                _format_number(row.times(reference)),
                f"{row.spread:.0%}" if row.rates else "-",
                _format_number(row.rate_all),
                f"{row.peak_bytes >> 20} MiB" if row.rates else "-",
                _off_by(row, reference) if same else "-",
            ]
            print(line.format(row.name, *cells, row.note).rstrip())

    @contextmanager
    def row(self, section: str, name: str) -> Iterator[None]:
        """What fails within is told in the row's place, and the bench goes on."""
        try:
            yield
        except Exception as error:
            text = str(error) if isinstance(error, Failed) else describe_failure(error)
            self.fact(section, name, {"failed": text})
            print(f"{name}: {text}", flush=True)

    def write(self) -> None:
        """Write what there is so far."""
        OUT.parent.mkdir(exist_ok=True)
        found = {"machine": self.machine, "sections": self.sections, "ratios": self.ratios}
        OUT.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")


def _format_number(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _off_by(row: Row, reference: Row) -> str:
    """Largest difference of the first fit's coefficients to those of the reference row."""
    mine, theirs = row.coefficients, reference.coefficients
    if mine is None or theirs is None or len(mine) != len(theirs):
        return "-"
    return f"{max(abs(a - b) for a, b in zip(mine, theirs, strict=True)):.0e}"


def format_mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def machine() -> Table:
    """What the numbers were measured on, and how busy it was."""
    with suppress(OSError):
        known = Path("/proc/cpuinfo").read_text()
    models = [line for line in known.splitlines() if line.startswith("model name")]
    packages = {}
    for name in ("torch", "jax", "jaxlib", "ray", "numpy", "pyarrow"):
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    return {
        "cpu": models[0].partition(": ")[2] if models else platform.machine(),
        "cores": len(CORES),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        **packages,
    }
