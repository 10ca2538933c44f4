"""A run as one HTML file that needs no network: words, charts, tables, and how to reproduce it."""

import platform
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from importlib.metadata import version
from importlib.resources import files
from typing import Any, Final

import jinja2

from polyfit import __version__
from polyfit.charts.files import script_bundle
from polyfit.charts.theme import DARK, LIGHT
from polyfit.run.compare import Comparison
from polyfit.run.digest import Digest
from polyfit.run.plot import Plots
from polyfit.run.reader import Run
from polyfit.show.conclusion import conclusion
from polyfit.show.data import without_non_finite
from polyfit.show.findings import asked, headline, outcome, share_text, to_look_at
from polyfit.show.receipt import receipt_pairs
from polyfit.show.report_charts import (
    Section,
    by_sweep,
    courses,
    ends,
    rates,
    time_line,
    versus_section,
    views_of,
)
from polyfit.show.report_tables import fits_table, groups_table, versus_table, versus_words
from polyfit.show.text import format_count, format_duration

__all__ = ["report_html"]

NAMED_FAILURES: Final = 5


@dataclass(frozen=True, slots=True)
class KeyFigure:
    """A number at the head of the page."""

    title: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Page:
    """What the template shows."""

    run: Run
    other: Run | None

    @property
    def name(self) -> str:
        """The run's name in its store."""
        return _name(self.run)

    @property
    def headline(self) -> str:
        return headline(self.run.plan)

    @property
    def conclusion(self) -> list[str]:
        """What the sweep shows."""
        return conclusion(self.found)

    @cached_property
    def plots(self) -> Plots:
        return self.run.plot

    @property
    def found(self) -> Digest:
        return self.plots.digest

    @property
    def colours(self) -> dict[str, tuple[str, str]]:
        """Each colour of the style sheet, for light and for dark pages."""
        names = ("background", "ink", "muted", "grid", "warning")
        plain = {name: (getattr(LIGHT, name), getattr(DARK, name)) for name in names}
        pairs = zip(LIGHT.series, DARK.series, strict=True)
        series = {f"series-{number}": pair for number, pair in enumerate(pairs, 1)}
        return {**plain, "panel": ("#f5f6f8", "#1d2125"), "line": ("#848d97", "#6e7781"), **series}

    @cached_property
    def alerts(self) -> list[str]:
        """What a reader must know before anything else."""
        lines = []
        plan, complete = self.run.plan, self.run.complete
        if not complete:
            lines.append(
                f"This run is not complete: {self.found.rows:,} of {plan.fits:,} fits are stored, "
                f"and the page shows those. When it was made: {self.run.driver()}."
            )
        failed = {} if complete else self.run.failed()
        if failed:
            lines.append(f"{format_count(len(failed), 'shard')} failed: {self._failures(failed)}")
        if self.found.rows and not len(self.found.best):
            lines.append("Every fit diverged.")
        return lines

    def _failures(self, failed: dict[int, list[str]]) -> str:
        shown = []
        for number, causes in list(failed.items())[:NAMED_FAILURES]:
            shard = self.run.plan.shard(number)
            last = causes[-1].strip().splitlines()[-1] if causes else "the cause is unknown"
            shown.append(f"shard {number} (fits {shard.start:,} to {shard.stop - 1:,}): {last}")
        more = len(failed) - len(shown)
        return "; ".join(shown) + (f"; and {more:,} more" if more else "")

    @property
    def figures(self) -> list[KeyFigure]:
        """The numbers at the head."""
        found, plan = self.found, self.run.plan
        stored = "all stored" if found.rows == plan.fits else f"of {plan.fits:,} asked for"
        diverged = found.total("diverged")
        figures = [
            KeyFigure("Fits", f"{found.rows:,}", stored),
            KeyFigure("Diverged", f"{diverged:,}", share_text(diverged, max(found.rows, 1))),
        ]
        if len(found.best):
            figures.append(KeyFigure("Least loss", f"{found.best['loss'][0]:.3g}",
                                     f"fit {found.best['fit'][0]:,}"))  # fmt: skip
        known = found.total("with_optimum")
        if known:
            near = found.total("near_optimum")
            figures.append(
                KeyFigure("Within 1% of optimum", share_text(near, known), f"{near:,} of {known:,}")
            )
        took = _seconds(self.attempts)
        if took is not None:
            figures.append(KeyFigure("Took", format_duration(took), "wall clock, all attempts"))
        return figures

    @property
    def words(self) -> dict[str, list[str]]:
        """The summary, in three parts."""
        return {
            "What was asked": asked(self.run.plan),
            "What came out": outcome(self.found),
            "What deserves a look": to_look_at(self.found, self._versus_words()),
        }

    @cached_property
    def sections(self) -> list[Section]:
        """What stands between the summary and the end."""
        tables = [groups_table(self.found)] if self.found.grouping.fields else []
        if len(self.found.best) and self.found.rows > 1:
            tables.append(fits_table(self.found))
        wanted = [
            self._versus_section(),
            by_sweep(self.plots, tables),
            courses(self.plots),
            ends(self.plots),
            rates(self.plots),
            time_line(self.attempts),
        ]
        return [section for section in wanted if section is not None]

    @property
    def charts(self) -> Any:
        """All Vega-Lite specs by their keys."""
        return without_non_finite(views_of(self.sections))

    @cached_property
    def attempts(self) -> list[dict[str, Any]]:
        return self.run.attempts()

    # --- another run --------------------------------------------------------------------------

    @cached_property
    def _versus(self) -> Comparison | None:
        return None if self.other is None else self.run.compare(self.other)

    def _versus_words(self) -> list[str]:
        if self._versus is None or self.other is None:
            return []
        return versus_words(self._versus, self.other.label)

    def _versus_section(self) -> Section | None:
        if self._versus is None or self.other is None:
            return None
        table, there = versus_table(self._versus), self.other.plot.digest
        return versus_section(self.found, there, self.other.label, table)

    # --- how to reproduce it --------------------------------------------------------------------

    @property
    def spec(self) -> str:
        return self.run.spec_text().strip() or "the spec is not stored"

    @property
    def spec_file(self) -> str:
        """The file that ``command`` reads; whatever name it had is not known."""
        return f"{self.name}.yaml"

    @property
    def command(self) -> str:
        store, _, run_id = self.run.uri.rpartition(f"/{self.name}/")
        words = ["polyfit", "run", self.spec_file, "--store", store]
        if run_id != self.run.plan.run_id:
            words += ["--run-id", run_id]
        if self.run.endpoint_url:
            words += ["--endpoint-url", self.run.endpoint_url]
        return f"{shlex.join(words)}\npolyfit report {self.run.address}"

    @property
    def facts(self) -> dict[str, str]:
        """The run's place and plan, and the versions."""
        plan = self.run.plan
        shards = format_count(plan.shards, "shard")
        started = [str(facts["started_at"]) for facts in self.attempts if "started_at" in facts]
        return {
            "run": self.run.uri,
            "plan": plan.hash,
            "engine": f"{plan.engine}, {shards} of up to {format_count(plan.shard_fits, 'fit')}",
            **({"first begun": min(started)} if started else {}),
            "attempts": f"{len(self.attempts):,}",
            **dict(receipt_pairs(self.run.receipt())),
            "polyfit": __version__,
            "torch": plan.torch,
            "this page": f"Python {platform.python_version()}, altair {version('altair')}",
        }


def report_html(run: Run, other: Run | None = None) -> bytes:
    """The page of ``run``, beside ``other`` where one is given."""
    folder = files("polyfit.show") / "page"
    style, script, text = (
        (folder / name).read_text(encoding="utf-8")
        for name in ("report.css", "report.js", "report.html")
    )
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.globals["zip"] = zip
    template = environment.from_string(text)
    page = template.render(
        page=Page(run, other),
        style=style,
        script=script,
        bundle=script_bundle(),
    )
    return page.encode()


def _name(run: Run) -> str:
    parts = run.uri.rstrip("/").split("/")
    return parts[-2] if len(parts) > 1 else parts[-1]


def _seconds(attempts: Sequence[dict[str, Any]]) -> float | None:
    """How long all attempts together took; None where no attempt noted its end."""
    total = 0.0
    for facts in attempts:
        try:
            begin, end = (datetime.fromisoformat(facts[n]) for n in ("started_at", "ended_at"))
        except (KeyError, ValueError):
            continue
        total += (end - begin).total_seconds()
    return total if attempts and any("ended_at" in facts for facts in attempts) else None
