"""Where the run of a spec is stored."""

import os
from dataclasses import replace
from datetime import date as Date
from typing import Final

from polyfit.spec.dates import read_date
from polyfit.spec.plan import Plan
from polyfit.spec.run_id import run_id_of
from polyfit.spec.spec import Spec
from polyfit.store.address import StoreAddress
from polyfit.store.uri import DATE, is_s3

__all__ = ["STORE_VARIABLE", "default_store", "is_dated", "run_address"]

STORE_VARIABLE: Final = "POLYFIT_STORE"
"""The variable of the environment that names a store where neither a command nor a spec does."""

_DEFAULT_STORE: Final = "./runs"


def default_store() -> str:
    """The store where nothing else names one."""
    return os.environ.get(STORE_VARIABLE) or _DEFAULT_STORE


def run_address(
    spec: Spec,
    plan: Plan,
    store: str | os.PathLike[str] | None = None,
    endpoint_url: str | None = None,
    run_id: str | None = None,
    date: str | Date | None = None,
) -> StoreAddress:
    """The folder of the run of ``plan``, which is that of ``spec``.

    Args:
        spec: names the store, if ``store`` is None.
        plan: names the run, if neither ``run_id`` nor the spec does.
        store: a folder or ``s3://bucket/prefix``.
        endpoint_url: an S3 endpoint; the spec's own, or the environment's, if None.
        run_id: the run's name in the store.
        date: takes the place of ``{date}`` in the store and the run id; today in UTC if None.

    Raises:
        UsageError: the store cannot be read, the run id is no name, or the date is none.
    """
    day = read_date(date)
    found_id = run_id_of(spec, plan, day, run_id)
    if endpoint_url is None and spec.store is not None and store is None:
        endpoint_url = spec.store.endpoint_url
    address = StoreAddress.of(_uri_of(spec, store), endpoint_url, str(day))
    if spec.store is not None and is_s3(address.uri):  # also in another bucket
        own = spec.store
        address = replace(
            address, sse=own.sse, kms_key_id=own.kms_key_id, storage_class=own.storage_class
        )
    return address.under(f"{spec.name}/{found_id}")


def is_dated(
    spec: Spec, store: str | os.PathLike[str] | None = None, run_id: str | None = None
) -> bool:
    """Whether runs of two dates are two runs; the arguments are those of ``run_address``."""
    found_id = run_id if run_id is not None else spec.run_id or ""
    return DATE in found_id or DATE in str(_uri_of(spec, store))


def _uri_of(spec: Spec, store: str | os.PathLike[str] | None) -> str | os.PathLike[str]:
    """The store as it was named."""
    if store is not None:
        return store
    return spec.store.uri if spec.store else default_store()
