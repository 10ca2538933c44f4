"""Where a run is stored, and the run it takes rows from."""

import os
from dataclasses import replace
from typing import Final

from polyfit.errors import UsageError
from polyfit.run.reuse import NothingAlike, Reuse
from polyfit.spec.plan import Plan
from polyfit.spec.schema import NAME
from polyfit.spec.spec import Spec
from polyfit.store.address import StoreAddress
from polyfit.store.uri import is_s3
from polyfit.work.cluster_address import inside_ray_job
from polyfit.work.progress import OnMessage

__all__ = ["reuse_address", "run_address"]

DEFAULT_STORE: Final = "./runs"


def run_address(
    spec: Spec,
    plan: Plan,
    store: str | os.PathLike[str] | None,
    endpoint_url: str | None,
    run_id: str | None,
) -> StoreAddress:
    """The folder of the run of ``plan``; see ``execute``.

    Raises:
        UsageError: no store is named inside a Ray job, or the run id is no name.
    """
    uri = store if store is not None else spec.store.uri if spec.store else None
    if uri is None:
        if inside_ray_job():
            raise UsageError(
                "a Ray job needs a store that outlives it: name one in the spec, or with "
                "--store s3://bucket/prefix"
            )
        uri = DEFAULT_STORE
    if run_id is not None and not NAME.fullmatch(run_id):
        raise UsageError(
            f"run id {run_id!r}; allowed: 1 to 63 of a-z, 0-9 and -, not beginning with -"
        )
    if endpoint_url is None and spec.store is not None and store is None:
        endpoint_url = spec.store.endpoint_url
    address = StoreAddress.of(uri, endpoint_url)
    if spec.store is not None and is_s3(address.uri):  # also in another bucket
        own = spec.store
        address = replace(
            address, sse=own.sse, kms_key_id=own.kms_key_id, storage_class=own.storage_class
        )
    return address.under(f"{spec.name}/{run_id or plan.run_id}")


def reuse_address(
    reuse: str | os.PathLike[str],
    endpoint_url: str | None,
    run: StoreAddress,
    plan: Plan,
    on_message: OnMessage,
) -> StoreAddress | None:
    """The folder of the run to take rows from; None if by its plan nothing can be taken.

    Raises:
        RunNotFound, PlanMismatch, UsageError, StoreError: it is no run, or cannot be read.
    """
    address = run.beside(reuse, endpoint_url)
    if address.uri == run.uri:
        on_message(f"{address.uri} is this run: it resumes from what is stored")
        return None
    try:
        Reuse(plan, address)
    except NothingAlike as error:
        on_message(f"reusing nothing of {address.uri}: {error}")
        return None
    on_message(f"reusing rows of {address.uri}, where it has fits of this plan")
    return address
