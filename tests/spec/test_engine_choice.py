"""Which engine a plan computes with."""

import pytest
from specs import plan_of

from polyfit.errors import SpecError


@pytest.mark.parametrize(
    ("text", "found", "allowed"),
    [
        ("fit: {objective: huber}", "fit.objective: 'huber'", "sse | mse"),
        ("fit: {optimizer: adam}", "fit.optimizer: 'adam'", "gd | {momentum: ...}"),
        ("sweep: {optimizer: [gd, newton]}", "sweep.optimizer: 'newton'", "gd | {momentum: ...}"),
        ("fit: {stop: {gradient: 0.1}}", "fit.stop: 'gradient=0.1'", "none"),
    ],
)
def test_engine_affine_is_refused_where_the_iteration_is_no_affine_map(
    text: str, found: str, allowed: str
) -> None:
    with pytest.raises(SpecError) as caught:
        plan_of(f"{text}\nengine: affine")
    message = f"<spec>:2: {found} with engine affine; allowed: {allowed}, "
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("fits", [1, 1_000_000])
def test_auto_is_compiled(fits: int) -> None:
    assert plan_of(f"sweep: {{seed: {{count: {fits}}}}}").engine == "compiled"


def test_auto_does_not_ask_who_runs_it() -> None:
    text = "sweep: {seed: {count: 1000000}}\n"
    more = "resources: {gpus_per_actor: 1, cpus_per_actor: 4, actors: {max: 9}}\n"
    assert plan_of(text).hash == plan_of(text + more).hash


@pytest.mark.parametrize("engine", ["eager", "compiled", "affine"])
def test_an_engine_that_is_named_is_taken(engine: str) -> None:
    assert plan_of(f"engine: {engine}").engine == engine
