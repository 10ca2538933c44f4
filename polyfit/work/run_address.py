"""The store of a run inside a Ray job, and the run that another takes rows from."""

import os
from dataclasses import replace
from datetime import date as Date

from polyfit.errors import UsageError
from polyfit.run.address import STORE_VARIABLE
from polyfit.run.resolve import find_run
from polyfit.run.reuse import NothingAlike, Reuse
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec
from polyfit.store.address import StoreAddress
from polyfit.work.cluster_address import inside_ray_job

__all__ = ["check_store_is_named", "reuse_source"]


def check_store_is_named(spec: Spec, store: str | os.PathLike[str] | None) -> None:
    """Check that a store is named inside a Ray job, whose working folder ends with it.

    Raises:
        UsageError: none is.
    """
    named = store is not None or spec.store is not None or bool(os.environ.get(STORE_VARIABLE))
    if not named and inside_ray_job():
        raise UsageError(
            "a Ray job needs a store that outlives it: name one in the spec, or with "
            "--store s3://bucket/prefix"
        )


def reuse_source(
    reuse: str | os.PathLike[str],
    endpoint_url: str | None,
    run: StoreAddress,
    plan: Plan,
    date: str | Date | None = None,
) -> tuple[StoreAddress | None, str]:
    """The folder of the run to take rows from, None if by its plan nothing can be taken; and what
    to say of it. Nothing is written.

    Names, ids and specs are looked for in the store of ``run``, of which ``date`` is the date.

    Raises:
        RunNotFound, PlanMismatch, UsageError, StoreError: it is no run, or cannot be read.
    """
    store = replace(run, uri=run.uri.rsplit("/", 2)[0])
    address = find_run(reuse, store, endpoint_url, date)
    if address.uri == run.uri:
        return None, f"{address.uri} is this run: it resumes from what is stored"
    try:
        Reuse(plan, address)
    except NothingAlike as error:
        return None, f"reusing nothing of {address.uri}: {error}"
    return address, f"reusing rows of {address.uri}, where it has fits of this plan"
