"""The spec that a run was begun with, which is stored in the run."""

from dataclasses import replace

from polyfit.errors import PlanMismatch, RunNotFound, SpecError
from polyfit.run.keys import SPEC
from polyfit.run.ledger import plan_at
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec
from polyfit.store.address import StoreAddress
from polyfit.store.base import NoSuchKey, Store

__all__ = ["begun_with", "stored_spec"]


def stored_spec(store: Store) -> str:
    """The text of the spec that the run whose folder is ``store`` was begun with, whatever version
    of polyfit made it.

    Raises:
        RunNotFound: there is none.
    """
    try:
        return store.get(SPEC).decode("utf-8", "replace")
    except NoSuchKey:
        raise RunNotFound(f"{store.uri} holds no {SPEC}, the spec of a run") from None


def begun_with(spec: Spec, address: StoreAddress) -> Spec | None:
    """The spec with which the run at ``address`` goes on, where ``spec`` has changed since it was
    begun: the stored one. Where and on what it runs is as in ``spec``.

    None where there is no run, where it is one of ``spec``, and where this version of polyfit
    cannot go on with it.

    Raises:
        StoreError: the store cannot be used.
    """
    store = address.open()
    try:
        plan = plan_at(store)
        if plan.hash == Plan.of(spec).hash:
            return None
        own = Spec.parse(stored_spec(store), f"{address.uri}/{SPEC}")
    except (RunNotFound, PlanMismatch, SpecError):
        return None
    own = replace(
        own,
        name=spec.name,
        run_id=spec.run_id,
        store=spec.store,
        resources=spec.resources,
        on_failure=spec.on_failure,
    )
    return own if Plan.of(own).hash == plan.hash else None
