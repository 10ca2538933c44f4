"""The store of a submitted spec: the same seen from the cluster, and what has to be sent for it."""

import json
import os
from collections.abc import Sequence
from typing import Final

from polyfit.errors import UsageError
from polyfit.run.address import STORE_VARIABLE
from polyfit.spec.spec import Spec
from polyfit.store.address import StoreAddress
from polyfit.store.uri import is_s3, normalize_endpoint

__all__ = ["check_outlives", "environment_of", "less_overridden", "named_endpoint"]

STOP_WAIT_S: Final = 40
"""Seconds from SIGTERM to SIGKILL when the job is stopped: its shards need up to 25."""


def less_overridden(
    spec: Spec, run: StoreAddress, store: str | None, endpoint_url: str | None
) -> Spec:
    """``spec``, whose store names no variables where ``store`` and ``endpoint_url`` count.

    With them, who reads it there would need them.
    """
    if not spec.store_variables or (store is None and endpoint_url is None):
        return spec
    if store is None:
        settings = {"store.endpoint_url": endpoint_url}
    elif is_s3(run.uri):
        settings = {"store.uri": store, "store.endpoint_url": endpoint_url}
    else:  # a folder takes no other keys
        settings = {"store": store}
    words = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    return Spec.parse(spec.text, spec.source, words)


def environment_of(specs: Sequence[Spec], store: str | None) -> dict[str, str]:
    """Time to stop, and the variables of this environment from which the stores follow."""
    names = {name for spec in specs for name in spec.store_variables}
    if store is None and not all(spec.store for spec in specs):
        names.add(STORE_VARIABLE)
    here = {name: os.environ[name] for name in sorted(names) if os.environ.get(name)}
    return {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), **here}


def check_outlives(spec: Spec, store: str | None, run: StoreAddress) -> None:
    """Check that the store of ``run`` is named, and may be the same seen from the cluster.

    Raises:
        UsageError: it is not.
    """
    named = store or (spec.store.uri if spec.store else os.environ.get(STORE_VARIABLE))
    if not named or not (is_s3(run.uri) or os.path.isabs(named)):
        found = f"{named!r} is a folder of this machine" if named else "none is named"
        raise UsageError(
            f"{spec.source}: a Ray job needs a store that outlives it, and {found}; allowed: "
            "s3://bucket/prefix, or the absolute path of a folder that all nodes share, in the "
            "spec or with --store"
        )


def named_endpoint(spec: Spec, store: str | None, endpoint_url: str | None) -> str:
    """The S3 endpoint that counts everywhere; "" if each machine's own does."""
    own = spec.store.endpoint_url if spec.store and store is None else None
    named = endpoint_url or own
    return normalize_endpoint(named) if named else ""
