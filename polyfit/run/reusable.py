"""How many fits of a plan another run has already, before anything is run."""

import os
from dataclasses import dataclass, replace
from datetime import date as Date

from polyfit.run.address import run_address
from polyfit.run.resolve import find_run
from polyfit.run.reuse import NothingAlike, Reuse
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec

__all__ = ["Reusable"]


@dataclass(frozen=True, slots=True)
class Reusable:
    """The fits of a plan that are stored in the run at ``uri``.

    ``fits`` is an estimate where not ``exact``; ``obstacle`` says why it is 0 whatever the fields.
    """

    uri: str
    fits: int
    exact: bool = True
    obstacle: str | None = None

    @classmethod
    def of(
        cls,
        spec: Spec,
        plan: Plan,
        reuse: str | os.PathLike[str],
        store: str | os.PathLike[str] | None = None,
        endpoint_url: str | None = None,
        date: str | Date | None = None,
    ) -> "Reusable":
        """What ``reuse``, a run's folder, name, id or spec, has of the plan of ``spec``.

        Args:
            spec, plan: what would be run.
            reuse: names and ids are looked for in the store of that run.
            store: of that run, if not the spec's.
            endpoint_url: an S3 endpoint; the environment's if None.
            date: of both runs; today in UTC if None.

        Raises:
            RunNotFound, PlanMismatch, UsageError, StoreError: it is no run, or cannot be read.
        """
        run = run_address(spec, plan, store, endpoint_url, date=date)
        address = find_run(reuse, replace(run, uri=run.uri.rsplit("/", 2)[0]), endpoint_url, date)
        try:
            found = Reuse(plan, address)
            fits, exact = found.num_stored()
            if exact and not fits:
                return cls(address.uri, 0, obstacle=found.why_none())
        except NothingAlike as error:
            return cls(address.uri, 0, obstacle=str(error))
        return cls(address.uri, fits, exact)
