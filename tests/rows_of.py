"""Results of a shard, made up for tests of rows and of their Parquet."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from polyfit.run.rows import Ragged, Rows, Words, to_table
from polyfit.run.schema import SCALARS, list_dtype
from polyfit.spec.fit import CANONICAL_ORDER
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec

STATUSES = ("completed", "converged", "diverged")
REASONS = Words()


FOOTER_OF_TEST = {"plan": "0" * 64, "fits": [0, 12], "statuses": {"completed": 12}}


def plan_of(fields: str = "", record: str = "{every: 10, of: [loss]}") -> Plan:
    """Twelve fits, one shard: degrees 1 and 3, six seeds."""
    return Plan.of(
        Spec.parse(
            f"name: rows\nshard: 12\nfit: {{steps: 30, points: 20}}\nrecord: {record}\n"
            f"sweep: {{degree: [1, 3], seed: {{count: {3 if fields else 6}}} {fields}}}"
        )
    )


def ints(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def rows_of(plan: Plan) -> Rows:
    """Results made up, every number finite and different."""
    fits = np.arange(plan.fits, dtype=np.int64)
    numbers = fits.astype(np.float64)
    columns = {name: plan.sweep.column(name, fits) for name in CANONICAL_ORDER}
    size = columns["degree"].array(np.int64) + 1
    recorded = {
        name: np.full(plan.fits, 3) * (size if name == "coefficients" else 1)
        for name in plan.record.of
    }

    def ragged(lengths: npt.NDArray[np.int64]) -> Ragged:
        return Ragged((np.arange(lengths.sum()) + 0.1).astype(list_dtype(plan)), lengths)

    return Rows(
        parameters=columns,
        lr=numbers + 0.25,
        lr_limit=numbers + 0.75,
        statuses=STATUSES,
        status=(fits % 3).astype(np.int8),
        reasons=REASONS,
        reason=fits % 2 * REASONS.code("rate above the limit"),
        steps_taken=30 - fits,
        steps_to_1pct=fits % 5 - 1,
        scalars={name: numbers + 100 * k for k, name in enumerate(SCALARS)},
        coefficients=ragged(size),
        power_coefficients=ragged(size),
        power_known=np.ones(plan.fits, dtype=np.bool_),
        histories={name: ragged(lengths) for name, lengths in recorded.items()},
    )


def made(plan: Plan, **changes: Any) -> pa.Table:
    return to_table(plan, plan.shard(0), replace(rows_of(plan), **changes))
