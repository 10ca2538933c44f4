"""The rows of one shard, as a plain function: problems, batches, evaluation.

Needs neither Ray nor a store. Problems are set up on the CPU, batches are iterated where the
caller says.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch

from polyfit.engine.affine import fit_affine, relative_difference, rounding_tolerance
from polyfit.engine.batch import DIVERGED, BatchInputs, BatchResult
from polyfit.engine.batch_data import BatchData
from polyfit.engine.evaluation import Evaluation, evaluate
from polyfit.engine.fit import fit_batch
from polyfit.engine.initial import initial_values
from polyfit.errors import EngineError
from polyfit.numerics.arrays import Array, Index
from polyfit.run.reuse import ReusedRows
from polyfit.run.rows import Ragged, Rows, Words, to_table
from polyfit.run.schema import SCALARS, list_dtype
from polyfit.spec.column import Column
from polyfit.spec.fit import CANONICAL_ORDER, Fit
from polyfit.spec.plan import Plan, Shard
from polyfit.spec.rate import curvature, learning_rate, stability_limit
from polyfit.work.batches import Batch, Batches
from polyfit.work.outcome import ROW_STATUSES, Outcome

__all__ = ["AFFINE_DIFFERENCE", "compute"]

CHECKED_FITS: Final = 16
"""Fits of each config in a shard that the affine engine computes and iteration repeats."""

AFFINE_DIFFERENCE: Final = b"affine_difference"
"""The key in a table's metadata of the largest difference that those repetitions showed."""

_CPU: Final = torch.device("cpu")


def compute(
    plan: Plan,
    shard: Shard,
    device: torch.device,
    threads: int = 1,
    reused: ReusedRows | None = None,
) -> pa.Table:
    """The rows of ``shard`` as an Arrow table.

    Args:
        plan: the plan; the caller has checked its torch.
        shard: which fits.
        device: where to iterate.
        threads: batches side by side; each kernel runs on one thread.
        reused: rows that need no fitting.

    Raises:
        EngineError: the affine engine and the iteration disagree.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fitting = ShardFitting(plan, shard, device, reused, threads)
        batches = list(fitting.batches.of(fitting.to_fit))
        if threads == 1:
            for batch in batches:
                fitting.run(batch)
        else:
            with ThreadPoolExecutor(threads) as pool:
                for _ in pool.map(fitting.run, batches):
                    pass
        rows = to_table(plan, shard, fitting.finished())
        return rows.replace_schema_metadata({AFFINE_DIFFERENCE: repr(max(fitting.differences))})
    finally:
        torch.set_num_threads(before)


class ShardFitting:
    """The fits of one shard: their parameters as columns, and their results as they come in."""

    def __init__(
        self,
        plan: Plan,
        shard: Shard,
        device: torch.device,
        reused: ReusedRows | None = None,
        threads: int = 1,
    ) -> None:
        self.plan = plan
        self.device = _CPU if plan.engine == "affine" else device
        self.compiled = plan.engine != "eager"
        self.differences = [0.0]
        self.num_fits = shard.fits
        self.columns = _columns(plan, shard)
        self.batches = Batches(plan, self.columns, self.device, threads)
        self.start_of = _initial_values(self.columns, self.compiled, self.device)
        self.rows = self._blank_rows()
        self.to_fit = reused.put(self.rows) if reused else np.arange(self.num_fits)

    def _blank_rows(self) -> Rows:
        """Rows for all fits, as of fits that could not be started."""
        dtype = list_dtype(self.plan)
        sizes = self.columns["degree"].array(np.int64) + 1
        steps = self.columns["steps"].array(np.int64)
        unknown = np.full(self.num_fits, np.nan)
        return Rows(
            parameters=self.columns,
            lr=unknown.copy(),
            lr_limit=unknown.copy(),
            statuses=ROW_STATUSES,
            status=np.full(self.num_fits, DIVERGED, dtype=np.int8),
            reasons=Words(),
            reason=np.zeros(self.num_fits, dtype=np.int64),
            steps_taken=np.zeros(self.num_fits, dtype=np.int64),
            steps_to_1pct=np.full(self.num_fits, -1, dtype=np.int64),
            scalars={name: unknown.copy() for name in SCALARS},
            coefficients=Ragged.empty(sizes, dtype),
            power_coefficients=Ragged.empty(sizes, dtype),
            power_known=np.zeros(self.num_fits, dtype=np.bool_),
            histories={
                name: Ragged.empty(self._num_recorded(name, steps), dtype)
                for name in self.plan.record.of
            },
        )

    def _num_recorded(self, name: str, taken: Index) -> Index:
        """How many numbers each fit records under ``name`` before it ends after so many updates."""
        counts = self.plan.record.counts(self.columns["steps"].array(np.int64), taken)
        per_update = self.columns["degree"].array(np.int64) + 1 if name == "coefficients" else 1
        return counts * per_update

    def finished(self) -> Rows:
        """The rows of all fits; a record ends with its fit."""
        for name, history in self.rows.histories.items():
            recorded = self._num_recorded(name, self.rows.steps_taken)
            self.rows.histories[name] = history.cut(recorded)
        return self.rows

    def run(self, batch: Batch) -> None:
        """Fit one batch and store its results in the rows; in halves where memory runs out."""
        try:
            self._run(batch)
            return
        except torch.OutOfMemoryError:
            if len(batch.at) == 1:
                raise
        # Outside ``except``: its traceback would keep the batch's tensors alive.
        if self.device.type != "cpu":
            torch.accelerator.memory.empty_cache()
        for half in batch.halves():
            self.run(half)

    def _run(self, batch: Batch) -> None:
        firsts = batch.at[np.flatnonzero(np.diff(batch.problem_of, prepend=-1))]
        data = BatchData.of(self.columns, firsts, self.compiled)
        config, plan = self.batches.config(batch), self.plan
        lr_B, limit_B = self._rates(batch, data, self.batches.example(int(batch.at[0])))
        inputs = BatchInputs(
            config,
            data.problems(batch.problem_of, config.squared),
            self.start_of(batch.at, config.size),
            lr_B,
            plan.record.updates(config.steps),
            plan.record.of,
        )
        if plan.engine == "affine":
            result = fit_affine(inputs)
            if batch.first_of_config:
                self._check(inputs, result)
        else:
            result = fit_batch(inputs, self.device, plan.engine)
        self._keep(batch, result)
        final_BM = result.coefficients_BM.astype(np.float64)
        found = evaluate(config, data, inputs.problems, final_BM, list_dtype(plan))
        self._keep_evaluation(batch, inputs, found)
        self._keep_outcome(batch, Outcome(inputs, data, limit_B, result, found))

    def _check(self, inputs: BatchInputs, result: BatchResult) -> None:
        """Iterate a few fits of an affine batch, and compare."""
        config, last = inputs.config, len(inputs.lr_B) - 1
        some = np.unique(np.linspace(0, last, CHECKED_FITS).astype(np.int64))
        unrecorded = replace(inputs.take(some), updates=(), record=())
        iterated = fit_batch(unrecorded, _CPU, "compiled")
        affine = replace(
            result, coefficients_BM=result.coefficients_BM[some], status_B=result.status_B[some]
        )
        found = relative_difference(affine, iterated, inputs.start_BM[some])
        allowed = rounding_tolerance(config)
        if not found <= allowed:
            raise EngineError(
                f"engine affine differs from the iteration by {found:.3g}, relative; allowed: "
                f"{allowed:.3g} ({config}); use another engine"
            )
        self.differences.append(found)

    def _rates(self, batch: Batch, data: BatchData, example: Fit) -> tuple[Array, Array]:
        """The learning rate of each fit and its stability limit, float64."""
        column = self.columns["lr"]
        codes, rate_of = np.unique(column.codes[batch.at], return_inverse=True)
        bound = curvature(example.objective, data.sigma_P, example.points)[batch.problem_of]
        rates = [column.items[code] for code in codes.tolist()]
        limit = stability_limit(example.optimizer, bound)
        if not example.optimizer.traits.linear:
            limit = np.full_like(limit, np.nan)
        return learning_rate(rates, rate_of, example.optimizer, bound), limit

    def _keep(self, batch: Batch, result: BatchResult) -> None:
        """Put what the engine returned into the rows."""
        rows, at = self.rows, batch.at
        rows.steps_taken[at] = result.steps_taken_B
        rows.coefficients.put(at, result.coefficients_BM)
        for name, values in result.recorded.items():
            per_fit = np.moveaxis(values, 0, 1)
            rows.histories[name].put(at, per_fit.reshape(len(at), -1))

    def _keep_evaluation(self, batch: Batch, inputs: BatchInputs, found: Evaluation) -> None:
        """Put into the rows what follows from the final coefficients, in float64, at all points."""
        rows, at, config, problems = self.rows, batch.at, inputs.config, inputs.problems
        rows.scalars["loss"][at] = found.loss
        rows.scalars["gradient_norm"][at] = found.gradient_norm
        rows.scalars["rmse"][at] = found.rmse
        rows.scalars["max_error"][at] = found.max_error
        if config.squared:
            divisor = config.points if config.objective == "mse" else 1
            rows.scalars["optimum_loss"][at] = problems.rest_P[problems.of_B] / divisor
            rows.scalars["excess_loss"][at] = found.excess
        rows.power_coefficients.put(at, found.powers)
        rows.power_known[at] = found.powers_known

    def _keep_outcome(self, batch: Batch, outcome: Outcome) -> None:
        """Put into the rows how fits ended, and why."""
        rows, at = self.rows, batch.at
        rows.lr[at], rows.lr_limit[at] = outcome.inputs.lr_B, outcome.limit_B
        rows.status[at] = outcome.status_B
        rows.steps_to_1pct[at] = outcome.steps_to_1pct_B
        for fits, text in outcome.reasons():
            rows.reason[at[fits]] = rows.reasons.code(text)


def _columns(plan: Plan, shard: Shard) -> dict[str, Column]:
    """The parameters of the shard's fits. Of seeds, all values are kept: nearly all occur."""
    fits = np.arange(shard.start, shard.stop, dtype=np.int64)
    return {
        name: plan.sweep.column(name, fits).compact()
        if name != "seed"
        else plan.sweep.column(name, fits)
        for name in CANONICAL_ORDER
    }


def _initial_values(columns: dict[str, Column], compiled: bool, device: torch.device) -> Any:
    """A function of positions and a size that returns the initial coefficients of those fits.

    Each seed is drawn once, with as many values as the highest degree needs.
    """
    seeds = columns["seed"].array(np.int64)
    if (np.diff(seeds) > 0).all():  # as in most shards: nothing to sort
        unique, codes = seeds, np.arange(len(seeds))
    else:
        unique, codes = np.unique(seeds, return_inverse=True)
    drawn = initial_values(unique, max(columns["degree"].items) + 1, compiled, device)
    return lambda at, size: drawn[codes[at], :size]
