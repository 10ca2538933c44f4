"""polyfit as a contender: a shard as users run it, or its iteration alone."""

import json
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.peers import Work

from bench.race import Contender, describe_failure
from bench.settings import NARROW, Failed, Spec


def tutorial_spec(engine: str, fits: int, losses: bool = False, **fit: Any) -> Spec:
    """The tutorial's job for many seeds; ``losses`` records twenty of them."""
    return {
        "name": "bench",
        "fit": {"basis": "power", "lr": 1e-6, **fit},
        "sweep": {"seed": {"count": fits}},
        "record": {"every": 100, "of": ["loss"]} if losses else "none",
        "engine": engine,
    }


def ours(
    spec: Spec,
    iteration_only: bool = False,
    in_flops: bool = False,
    accelerated: bool = False,
) -> "Work":
    """All fits of ``spec`` as one shard through ``compute``, the general code as users run it.

    ``iteration_only`` runs the calls that the shard makes to the engine, and nothing else; on an
    accelerator, like its peers, with inputs and results that stay there. ``in_flops`` counts the
    operations of the updates taken instead of fits. ``accelerated`` takes the accelerator of the
    machine instead of the CPU.
    """
    _limit_to_avx2()
    import torch

    from bench.peers import Work
    from polyfit.engine.fit import pick_device
    from polyfit.spec.plan import Shard
    from polyfit.work import fitting

    plan = plan_of(spec)
    shard = Shard(0, 0, plan.fits)
    compute = partial(fitting.compute, plan, shard, pick_device(accelerated))
    if not iteration_only:
        work = Work(plan.fits, lambda: None)

        def run() -> Any:
            rows = compute()
            if in_flops and not work.note:
                work.units, work.note = _count_flops(rows), _count_statuses(rows)
            # Another optimizer's coefficients are not to be compared with the tutorial's.
            same = "optimizer" not in spec.get("fit", {})
            return rows["coefficients"].slice(0, 1).to_pylist() if same else None

        work.run = run
        return work
    torch.set_num_threads(1)
    calls: list[partial[Any]] = []
    name = "fit_affine" if plan.engine == "affine" else "fit_batch"
    engine: Any = getattr(fitting, name)

    def noted(*arguments: Any, **named: Any) -> Any:
        calls.append(partial(engine, *arguments, **named))
        return engine(*arguments, **named)

    setattr(fitting, name, noted)
    compute()
    setattr(fitting, name, engine)
    if not calls:
        raise RuntimeError(f"fitting.compute does not call fitting.{name}")
    if accelerated:
        return Work(plan.fits, _on_the_device([call.args[0] for call in calls]))

    def iterate() -> Any:
        outcomes = [call() for call in calls]
        return outcomes[0].coefficients_BM

    return Work(plan.fits, iterate)


def _on_the_device(batches: list[Any]) -> Callable[[], Any]:
    """The iteration of batches whose arrays are on the GPU, and stay there."""
    import torch

    from polyfit.engine import gpu
    from polyfit.engine.layout import kernel_of, layout

    device, calls = torch.device("cuda"), []
    for inputs in batches:
        kernel, count = kernel_of(inputs), len(inputs.lr_B)
        here = layout(kernel, inputs, count)
        there: dict[str, Any] = {
            name: value if isinstance(value, int) else torch.from_numpy(value).to(device)
            for name, value in here.items()
        }
        call = gpu.launcher(kernel, there, device)
        calls.append((there, there["taken"].clone(), count, kernel.config.steps, call))

    def iterate() -> Any:
        for there, going, count, steps, call in calls:
            there["taken"].copy_(going)
            call(begin=0, end=count, update=0, until=steps, slot=0)
        return calls[0][0]["final"][:, :1].T.tolist()

    return iterate


def _limit_to_avx2() -> None:
    """Have our emitter take this CPU as one without AVX-512, where torch is told so.

    The name of machine code in the cache holds a CPU's features, so that each finds its own.
    """
    if os.environ.get("ATEN_CPU_CAPABILITY") != NARROW["ATEN_CPU_CAPABILITY"]:
        return
    from polyfit.engine import cpu

    name, features = cpu._host()
    left_out = ("+avx512", "+avx10", "+evex512")
    told = ",".join(
        f"-{one[1:]}" if one.startswith(left_out) else one for one in features.split(",")
    )
    setattr(cpu, "_host", lambda: (name, told))  # noqa: B010 (no attribute that mypy knows as exported)


def kernel_initial_values(seeds: int) -> "Work":
    """Initial values of seeds 0 to ``seeds`` - 1, four of each, by the kernel."""
    _limit_to_avx2()
    return _initial_values(seeds, compiled=True)


def torch_initial_values(seeds: int) -> "Work":
    """The same by torch, one seed after the other."""
    return _initial_values(seeds, compiled=False)


def _initial_values(seeds: int, compiled: bool) -> "Work":
    import numpy as np

    from bench.peers import Work
    from polyfit.engine.initial import initial_values

    numbers = np.arange(seeds, dtype=np.int64)
    return Work(seeds, partial(initial_values, numbers, 4, compiled))


def plan_of(spec: Spec) -> Any:
    from polyfit.spec.plan import Plan
    from polyfit.spec.spec import Spec as SpecFile

    return Plan.of(SpecFile.parse(json.dumps(spec)))  # JSON is YAML


def checked_plan(spec: Spec) -> Any:
    """The plan of ``spec``.

    Raises:
        Failed: this version refuses it.
    """
    try:
        return plan_of(spec)
    except Exception as error:
        raise Failed(describe_failure(error)) from None


def step_flops(degree: int) -> int:
    """Operations of one update of a reduced cubic's kind: residual, gradient and c -= lr g.

    With M = degree + 1: residual R c - q, a triangle of M (M + 1) / 2 products, as many sums;
    gradient 2 R'r, the same number again; and 2 M for the update.
    """
    size = degree + 1
    return 2 * size * (size + 1) + 2 * size


def _count_flops(rows: Any) -> int:
    import numpy as np

    degrees, steps = (rows[name].to_numpy().astype(np.int64) for name in ("degree", "steps_taken"))
    size = degrees + 1
    return int(((2 * size * (size + 1) + 2 * size) * steps).sum())


def _count_statuses(rows: Any) -> str:
    counts = rows["status"].combine_chunks().value_counts().to_pylist()
    return ", ".join(f"{one['counts']:,} {one['values']}" for one in counts)


def our_contender(name: str, spec: Spec, cores: str = "one", **how: Any) -> Contender:
    return Contender(name, "bench.ours:ours", {"spec": spec, **how}, cores)
