"""Reads a run: groups, histories, predictions, comparisons, and all of its rows.

Neither torch nor Ray is needed, nor the driver: the store is enough. Rows are read a shard at a
time, and of a shard only the columns asked for.
"""

import os
from collections.abc import Iterable
from dataclasses import replace
from datetime import date as Date
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from polyfit.run.columns import By, check_names, group_columns
from polyfit.run.keys import REPORT
from polyfit.run.last_attempt import describe_last_attempt
from polyfit.run.ledger import plan_at
from polyfit.run.notebook import html_table
from polyfit.run.resolve import find_run
from polyfit.run.run_receipt import RunReceipt
from polyfit.run.schema import empty_table
from polyfit.run.state import RunState, read_state
from polyfit.run.stored_fit import predict, warn_if_outside
from polyfit.run.stored_rows import READ_AHEAD, StoredRows
from polyfit.run.verify import Verdict, verify
from polyfit.store.address import StoreAddress

if TYPE_CHECKING:
    import polars as pl

    from polyfit.run.compare import Comparison
    from polyfit.run.plot import Plots

__all__ = ["Run"]

_SHOWN_IN_NOTEBOOK: Final = 20
_SUMMED_UP_IN_NOTEBOOK: Final = 1_000_000
"""Fits up to which a run shows its groups by itself: it reads all rows for them."""


class Run(StoredRows):
    """One run in a store; open it with ``Run.open``.

    A run that is not complete opens too, and has the shards that are stored.
    """

    @classmethod
    def open(
        cls,
        run: str | os.PathLike[str],
        endpoint_url: str | None = None,
        store: str | os.PathLike[str] | None = None,
        date: str | Date | None = None,
        run_id: str | None = None,
    ) -> "Run":
        """The run that ``run`` names: its own folder, ``<store>/<name>/<run id>``, or a name, an
        id or a spec's file; see ``find_run``. ``date`` takes the place of ``{date}`` in what names
        it; today in UTC if None. ``run_id`` is that of the run of a spec, as for ``execute``.

        Raises:
            RunNotFound: there is no plan.
            PlanMismatch: another version of polyfit made the plan.
            StoreError: the store cannot be used.

        >>> Run.open(run.uri).complete
        True
        """
        return cls.at(find_run(run, store, endpoint_url, date, run_id))

    @classmethod
    def at(cls, address: StoreAddress) -> "Run":
        """The run in the folder at ``address``.

        Raises:
            RunNotFound, PlanMismatch, StoreError: as ``open``.

        >>> Run.at(run.address).complete
        True
        """
        opened = address.open()
        return cls(address, opened, plan_at(opened))

    def __repr__(self) -> str:
        fits = "1 fit" if self.plan.fits == 1 else f"{self.plan.fits:,} fits"
        return f"Run({self.uri!r}: {fits})"

    def __len__(self) -> int:
        """The number of fits of its plan, stored or not.

        >>> len(run)
        12
        """
        return self.plan.fits

    def _repr_html_(self) -> str:
        """The view in a notebook: what it is, and its groups."""
        state = "complete" if self.complete else "not complete"
        caption = f"{self.uri}: {self.plan.fits:,} fits, {state}"
        if self.plan.fits > _SUMMED_UP_IN_NOTEBOOK:
            return html_table(f"{caption}; run.groups() sums it up", [], [])
        groups = self.groups()
        if len(groups) > _SHOWN_IN_NOTEBOOK:
            caption += f"; {_SHOWN_IN_NOTEBOOK} of {len(groups):,} groups"
        return html_table(caption, groups.columns, groups.head(_SHOWN_IN_NOTEBOOK).rows())

    def state(self) -> RunState:
        """How far it is and who drives it, without a look at its rows.

        >>> run.state().state
        <State.COMPLETE: 'complete'>
        """
        return read_state(self._ledger.store, self.plan)

    def driver(self) -> str:
        """Whether a driver is at work on the run, in words.

        >>> run.driver()
        'no driver is at work on it: attempt ... ended with exit code 0'
        """
        return describe_last_attempt(self._ledger)

    def best(self, by: By = (), where: str | None = None) -> "pl.DataFrame":
        """The fit with the least loss, or the best of each group; without columns of lists.

        Args:
            by: the columns whose values make a group, as a list or as "degree, lr"; ``range``
                stands for its two.
            where: a condition on the rows that count.

        >>> run.best(by="degree").select("degree", "status").rows()
        [(1, 'completed'), (3, 'completed'), (5, 'completed')]
        """
        return self.extremes(by, where)

    def extremes(
        self, by: By = (), where: str | None = None, worst: bool = False
    ) -> "pl.DataFrame":
        """The best fit of each group, or the worst; see ``best`` and ``extreme_fits``.

        >>> run.extremes("seed", where="degree < 5", worst=True)["degree"].to_list()
        [1, 1, 1, 1]
        """
        from polyfit.run.best import extreme_fits
        from polyfit.run.scan import to_polars

        columns = group_columns(by or (), self.plan)
        needed = list(dict.fromkeys(("fit", "loss", *columns)))
        parts = self.batches(needed, where, side_by_side=READ_AHEAD)
        fits = extreme_fits(map(to_polars, parts), columns, worst)
        rows = to_polars(self.rows(fits, self.scalar_columns))
        return rows.sort(columns or "fit", nulls_last=True)

    def history(self, fits: int | Iterable[int]) -> "pl.DataFrame":
        """What was recorded of some fits, a line for each fit and recorded update: ``fit``,
        ``step`` (the number of the update, from 0, before which it was taken), ``loss``, ...
        A fit that ``fits`` has twice counts once.

        Raises:
            UsageError: nothing was recorded, or the plan has no such fit.
            DamagedRun: a shard is not stored or cannot be read.

        >>> run.history([0, 4]).columns
        ['fit', 'step', 'loss', 'coefficients']
        """
        from polyfit.run.history import history_columns, long_history
        from polyfit.run.scan import to_polars

        wanted = fits if isinstance(fits, int) else dict.fromkeys(int(fit) for fit in fits)
        return long_history(to_polars(self.rows(wanted, history_columns(self.plan))))

    def predict(self, fits: int | Iterable[int], x: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The fitted polynomials at ``x``; warns where x lies outside a fit's range.

        Args:
            fits: one fit, or several.
            x: of any shape.

        Returns:
            float64 with the shape of ``x``; of several fits with one more axis, the first.

        >>> run.predict(8, 0.5).round(2)
        np.float64(0.47)
        >>> run.predict([8, 9], [0, 0.5, 1]).shape
        (2, 3)
        """
        rows = self.rows(fits).to_pylist()
        warn_if_outside(rows, x)
        if isinstance(fits, int):
            return predict(rows[0], x)
        return np.array([predict(row, x) for row in rows]).reshape(len(rows), *np.shape(x))

    @property
    def plot(self) -> "Plots":
        """The run as charts, which show themselves in a notebook; see ``Plots``.

        >>> run.plot.loss("degree").to_dict()["layer"][0]["encoding"]["x"]["field"]
        'x'
        """
        return self.charts()

    def charts(self, theme: str = "light") -> "Plots":
        """``plot`` in the colours of a page that is "light" or "dark".

        >>> run.charts("dark").distribution().to_dict()["config"]["background"]
        '#14171a'
        """
        from polyfit.run.plot import Plots  # altair: only where a chart is wanted

        return Plots(self, theme)

    def store_report(self, page: bytes) -> None:
        """Store an HTML page in the run, in place of an earlier one.

        >>> run.store_report(b"<!doctype html>")

        Raises:
            StoreError: the store cannot be used, or refuses.
        """
        self._ledger.store.put(REPORT, page)

    def attempts(self) -> list[dict[str, Any]]:
        """What is known of the latest attempts at the run, the latest last.

        >>> [facts["exit_code"] for facts in run.attempts()]
        [0]
        """
        return self._ledger.attempts()

    def failed(self) -> dict[int, list[str]]:
        """The shards that failed and are not stored, with the causes.

        >>> run.failed()
        {}
        """
        numbers = sorted(self._ledger.failed_shards() - set(self.shard_numbers()))
        return {number: self._ledger.causes(number) for number in numbers}

    def spec_text(self) -> str:
        """The spec as it was submitted.

        >>> run.spec_text().splitlines()[0]
        'name: documented'
        """
        return self._ledger.spec_text()

    def groups(self, by: By | None = None, where: str | None = None) -> "pl.DataFrame":
        """The run summed up per group, a row each; see ``group_rows`` for the columns.

        Args:
            by: the columns whose values make a group, as a list or as "degree, lr"; ``range``
                stands for its two; if None or "swept" those of the swept fields but for the seeds.
            where: a condition on the rows that count.

        >>> run.groups().select("degree", "fits", "completed").rows()
        [(1, 4, 4), (3, 4, 4), (5, 4, 4)]
        """
        from polyfit.run.groups import GROUP_COLUMNS, group_rows
        from polyfit.run.scan import to_polars

        names = group_columns(by, self.plan)
        needed = list(dict.fromkeys((*names, *GROUP_COLUMNS)))
        check_names(needed, self.schema.names)
        empty = empty_table(self.schema).select(needed)
        parts = chain([empty], self.batches(needed, where, side_by_side=READ_AHEAD))
        return group_rows(map(to_polars, parts), names, self.plan.fits)

    def compare(
        self,
        before: "Run | str | os.PathLike[str]",
        by: By | None = None,
        tolerance: float = 1e-6,
    ) -> "Comparison":
        """Compare this run with another one, as its earlier state: the fits that both have, and
        the groups that both have; see ``polyfit.run.compare``.

        Args:
            before: a run, or what names one, such as "sine@-1": in the store of this run.
            by: as of ``groups``.
            tolerance: losses that differ by this share of the larger one at most count as equal.

        >>> found = run.compare("documented")
        >>> (found.common, found.identical, len(found.worse(0)))
        (12, 12, 0)
        >>> print(found)
        12 fits in both, 0 only now, 0 only before; 12 have the same status and bits.
        Of 3 groups compared, none is worse and none is better by more than 0.0001%.
        """
        from polyfit.run.compare import compare

        if not isinstance(before, Run):
            store = replace(self.address, uri=self.uri.rsplit("/", 2)[0])
            before = Run.at(find_run(before, store))
        return compare(self, before, by, tolerance)

    def receipt(self) -> RunReceipt:
        """What the run has taken, over all of its attempts; see ``RunReceipt``.

        >>> receipt = run.receipt()
        >>> receipt.fits, receipt.attempts, sorted(receipt.core_seconds)
        (12, 1, ['compiling', 'fitting', 'other', 'starting'])
        """
        return RunReceipt.read(self._ledger, self.complete)

    def verify(self) -> Verdict:
        """Prove from the store alone that every fit is stored exactly once and every shard is
        intact; see ``polyfit.run.verify``.

        >>> run.verify().problems
        []
        """
        return verify(self._ledger)
