"""A kernel's key decides its text."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from engine_batches import iteration

from polyfit.engine.affine_kernel import AffinePowerKernel
from polyfit.engine.kernel import Kernel, cpu_text
from polyfit.spec.fit import OBJECTIVES, Stop
from polyfit.spec.optimizer import Optimizer


def kernels() -> Iterator[Kernel]:
    """Kernels of the iteration that differ in one thing."""
    for objective in OBJECTIVES:
        for optimizer in ("gd", "momentum", "adam"):
            for stop in (True, False):
                yield iteration(objective, optimizer, torch.float64, stop)
    one = iteration("sse", "gd", torch.float32)
    yield one
    yield replace(one, one_design=False)
    yield replace(one, one_data=True)
    yield replace(one, record=("loss",))
    yield replace(one, config=replace(one.config, degree=4))
    yield replace(one, config=replace(one.config, stop=Stop("loss_change", 1e-3)))
    affine = AffinePowerKernel(3, "sse", 0, True, True, ("loss",), False)
    yield affine
    yield replace(affine, degree=2)
    yield replace(affine, objective="mse")
    yield replace(affine, moments=1)
    yield replace(affine, one_map=False)
    yield replace(affine, one_R=False)
    yield replace(affine, record=())
    yield replace(affine, single=True)


def test_kernels_that_differ_have_other_words() -> None:
    words = [kernel.key for kernel in kernels()]
    assert len(set(words)) == len(words)


def test_a_kernels_words_decide_its_text() -> None:
    """What is not in the words (points, steps, beta, tolerance) is not in the code."""
    one = iteration("huber", "momentum", torch.float32)
    config = replace(
        one.config,
        points=7,
        steps=9,
        optimizer=Optimizer("momentum", 0.5),
        stop=Stop("gradient", 9.0),
    )
    assert replace(one, config=config).key == one.key
    assert cpu_text(replace(one, config=config), 4) == cpu_text(one, 4)
