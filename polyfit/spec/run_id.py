"""What names the run of a spec in its store."""

from datetime import date as Date

from polyfit.errors import UsageError
from polyfit.spec.dates import fill_date, undated
from polyfit.spec.plan import Plan
from polyfit.spec.schema import NAME
from polyfit.spec.spec import Spec
from polyfit.store.uri import DATE

__all__ = ["run_id_of"]


def run_id_of(spec: Spec, plan: Plan, day: Date, run_id: str | None = None) -> str:
    """The id of the run of ``day``: ``run_id``, else the spec's, else that of the plan.

    Raises:
        UsageError: it is no name.
    """
    if run_id is not None and not NAME.fullmatch(undated(run_id)):
        raise UsageError(
            f"run id {run_id!r}; allowed: 1 to 63 of a-z, 0-9 and -, not beginning with -; "
            f"{DATE} stands for the date"
        )
    found = run_id if run_id is not None else spec.run_id
    return plan.run_id if found is None else fill_date(found, day)
