"""Contenders, each in a process of its own, that take turns on one core."""

import importlib
import json
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.peers import Work

from bench.processes import peak_bytes_of
from bench.settings import ANSWER_S, CORES, NARROW, Failed, Options, Table, finite_or_none


@dataclass(frozen=True, slots=True)
class Contender:
    """A row of a table: ``maker`` ("module:function") returns its ``Work`` in its own process.

    ``cores`` is "one", "each" (one core, then a process on each of ``most``), or "all" (one
    process that uses all of them by itself). ``narrow``: with AVX2 at most.
    """

    name: str
    maker: str
    arguments: dict[str, Any] = field(default_factory=dict)
    cores: str = "one"
    narrow: bool = False
    most: int | None = None


@dataclass(slots=True)
class Row:
    """What was measured of a contender; rates are units (fits) per second."""

    name: str
    rates: list[float] = field(default_factory=list)
    all_cores: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    coefficients: list[float] | None = None
    note: str = ""
    failed: str = ""

    @property
    def rate(self) -> float:
        return statistics.median(self.rates) if self.rates else math.nan

    @property
    def rate_all(self) -> float:
        return statistics.median(self.all_cores) if self.all_cores else math.nan

    def times(self, other: "Row") -> float:
        """Its rate divided by the other's: the median over the rounds, each its own ratio."""
        ratios = [mine / theirs for mine, theirs in zip(self.rates, other.rates, strict=False)]
        return statistics.median(ratios) if ratios else self.rate_all / other.rate

    @property
    def spread(self) -> float:
        return (max(self.rates) - min(self.rates)) / self.rate if self.rates else math.nan

    def as_json(self) -> Table:
        """As JSON."""
        return {
            "rate": finite_or_none(self.rate),
            "rates": self.rates,
            "rate_all_cores": finite_or_none(self.rate_all),
            "rates_all_cores": self.all_cores,
            "peak_bytes": self.peak_bytes,
            "coefficients": self.coefficients
            and [finite_or_none(one) for one in self.coefficients],
            "note": self.note,
            "failed": self.failed,
        }


def _serve(pipe: Connection, contender: Contender, cores: Sequence[int]) -> None:
    """In the child: prepare, warm up, then one round per request until None comes."""
    os.sched_setaffinity(0, cores)  # before anything starts threads: they stay here too
    if contender.narrow:
        os.environ.update(NARROW)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)  # the table is told there; Ray Tune would write into it
    try:
        module, _, name = contender.maker.partition(":")
        work: Work = getattr(importlib.import_module(module), name)(**contender.arguments)
        try:
            found = work.run()
            first = None if found is None else [float(value) for value in found[0]]
            pipe.send({"coefficients": first, "note": work.note})
            while (round_s := pipe.recv()) is not None:
                pipe.send(
                    {"rate": _one_round(work, round_s), "peak_bytes": peak_bytes_of(os.getpid())}
                )
        finally:
            work.close()
    except Exception as error:
        pipe.send({"failed": describe_failure(error)})


def _one_round(work: "Work", round_s: float) -> float:
    runs, start = 0, time.perf_counter()
    while True:
        work.run()
        runs += 1
        spent = time.perf_counter() - start
        if spent >= round_s:
            return runs * work.units / spent


def describe_failure(error: Exception) -> str:
    """One line for the table: an engine that this version refuses is no failure."""
    text = " ".join(str(error).split())[:300]
    return f"not available: {text}" if type(error).__name__ == "SpecError" else (
        f"failed: {type(error).__name__}: {text}"
    )  # fmt: skip


class Runner:
    """A contender's process, seen from here. It ends by its own handle."""

    def __init__(
        self, contender: Contender, cores: Sequence[int], answer_s: float = ANSWER_S
    ) -> None:
        self.answer_s = answer_s
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, contender, cores))
        self.process.start()
        theirs.close()

    def answer(self) -> Table:
        """The next message.

        Raises:
            Failed: the child failed, died, or takes too long.
        """
        try:
            if not self.pipe.poll(self.answer_s):
                raise Failed(f"failed: no answer within {self.answer_s:.0f} s")
            told: Table = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(10)
            raise Failed(f"failed: its process died ({self.process.exitcode})") from None
        if "failed" in told:
            raise Failed(told["failed"])
        return told

    def ask(self, round_s: float) -> None:
        """Have it do a round; that it died is told by ``answer``."""
        with suppress(OSError):
            self.pipe.send(round_s)

    def end(self) -> None:
        """Let it finish, then make it."""
        with suppress(OSError):
            self.pipe.send(None)
        self.process.join(30)
        for stop in (self.process.terminate, self.process.kill):
            if self.process.is_alive():
                stop()
                self.process.join(10)
        self.pipe.close()


def race(contenders: Sequence[Contender], options: Options) -> dict[str, Row]:
    """Measure contenders side by side; those that use all cores come after, one by one."""
    rows = {one.name: Row(one.name) for one in contenders}
    alone = [one for one in contenders if one.cores != "all"]
    runners: dict[str, Runner] = {}
    try:
        for one in alone:
            if _out_of_time(rows[one.name], options):
                continue
            _show_progress(f"warming up: {one.name}")
            runners[one.name] = Runner(one, CORES[-1:], options.answer_s)
            _note_failure(rows[one.name], partial(_warm, rows[one.name], runners[one.name]))
        for number in range(options.rounds):
            for one in alone:
                row = rows[one.name]
                if not row.failed:
                    _show_progress(f"round {number + 1} of {options.rounds}: {one.name}")
                    _note_failure(row, partial(_round, row, runners[one.name], options))
    finally:
        for runner in runners.values():
            runner.end()
    for one in contenders:
        row = rows[one.name]
        if one.cores != "one" and not row.failed and not _out_of_time(row, options):
            _show_progress(f"on all cores: {one.name}")
            _note_failure(row, partial(_on_all_cores, row, one, options))
    _show_progress("")
    return rows


def _out_of_time(row: Row, options: Options) -> bool:
    if time.monotonic() < options.until:
        return False
    row.failed = row.failed or "left out: the section has had its time"
    return True


def _note_failure(row: Row, measure: Callable[[], None]) -> None:
    try:
        measure()
    except Failed as error:
        row.failed = str(error)


def _warm(row: Row, runner: Runner) -> None:
    told = runner.answer()
    row.coefficients, row.note = told["coefficients"], told["note"]


def _round(row: Row, runner: Runner, options: Options) -> None:
    runner.ask(options.round_s)
    told = runner.answer()
    row.rates.append(told["rate"])
    row.peak_bytes = told["peak_bytes"]


def _on_all_cores(row: Row, contender: Contender, options: Options) -> None:
    """A process on each core, or one on all: all go at once, and their rates add up."""
    each = [[core] for core in CORES[: contender.most]]
    places = [CORES] if contender.cores == "all" else each
    runners: list[Runner] = []
    try:
        for place in places:
            runners.append(Runner(contender, place, options.answer_s))
        for runner in runners:
            told = runner.answer()
            row.note, row.coefficients = row.note or told["note"], told["coefficients"]
        for _ in range(max(2, options.rounds // 2)):
            for runner in runners:
                runner.ask(options.round_s)
            row.all_cores.append(sum(runner.answer()["rate"] for runner in runners))
    finally:
        for runner in runners:
            runner.end()


def in_child(maker: str, cores: Sequence[int], **arguments: Any) -> Any:
    """What ``maker`` ("module:function") returns in a process of its own.

    Raises:
        Failed: it raised, or died.
    """
    runner = Runner(
        Contender("", "bench.race:work_of_result", {"maker": maker, "arguments": arguments}), cores
    )
    try:
        return json.loads(runner.answer()["note"])
    finally:
        runner.end()


def work_of_result(maker: str, arguments: dict[str, Any]) -> "Work":
    """A work without rounds whose note is a function's result."""
    from bench.peers import Work

    module, _, name = maker.partition(":")
    found = getattr(importlib.import_module(module), name)(**arguments)
    return Work(0, lambda: None, json.dumps(found))


def _show_progress(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{line[:100]}", end="", file=sys.stderr, flush=True)
