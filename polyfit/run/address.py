"""Where the run of a spec is stored."""

import os
from dataclasses import replace
from typing import Final

from polyfit.errors import UsageError
from polyfit.spec.plan import Plan
from polyfit.spec.schema import NAME
from polyfit.spec.spec import Spec
from polyfit.store.address import StoreAddress
from polyfit.store.uri import is_s3

__all__ = ["STORE_VARIABLE", "default_store", "run_address"]

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
) -> StoreAddress:
    """The folder of the run of ``plan``, which is that of ``spec``.

    Args:
        spec: names the store, if ``store`` is None.
        plan: names the run, if ``run_id`` is None.
        store: a folder or ``s3://bucket/prefix``.
        endpoint_url: an S3 endpoint; the spec's own, or the environment's, if None.
        run_id: the run's name in the store.

    Raises:
        UsageError: the store cannot be read, or the run id is no name.
    """
    if run_id is not None and not NAME.fullmatch(run_id):
        raise UsageError(
            f"run id {run_id!r}; allowed: 1 to 63 of a-z, 0-9 and -, not beginning with -"
        )
    uri = store if store is not None else spec.store.uri if spec.store else default_store()
    if endpoint_url is None and spec.store is not None and store is None:
        endpoint_url = spec.store.endpoint_url
    address = StoreAddress.of(uri, endpoint_url)
    if spec.store is not None and is_s3(address.uri):  # also in another bucket
        own = spec.store
        address = replace(
            address, sse=own.sse, kms_key_id=own.kms_key_id, storage_class=own.storage_class
        )
    return address.under(f"{spec.name}/{run_id or plan.run_id}")
