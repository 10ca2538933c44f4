"""The compiled engine: autograd's gradient; lanes, CPUs and calls that change no bit."""

import os
import re
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_batches import BATCHES, RECORD, batch_of, forget, iteration
from engines import rows_of
from llvmlite import binding as llvm

from polyfit.engine import compiled, cpu
from polyfit.engine.kernel import cpu_text
from polyfit.engine.trace import forward, trace
from polyfit.spec.fit import OBJECTIVES, SQUARED

LEVELS = {
    "x86-64-v2": ("sse4.2", "popcnt"),
    "x86-64-v3": ("avx2", "bmi2", "fma", "f16c"),
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
}
"""Kinds of CPU, and features that each needs beyond those before."""


def runs(level: str) -> bool:
    """Whether this machine runs code for a kind of CPU."""
    features, needed = llvm.get_host_cpu_features(), list(LEVELS)[: list(LEVELS).index(level) + 1]
    return all(features.get(name, False) for one in needed for name in LEVELS[one])


@pytest.mark.parametrize("degree", [0, 1, 3, 9, 30])
@pytest.mark.parametrize("objective", SQUARED)
def test_updates_of_a_squared_objective_have_the_bits_of_autograds(
    objective: str, degree: int
) -> None:
    optimizer = "adam" if degree < 30 else "gd"
    text = (
        f"fit: {{degree: {degree}, objective: {objective}, optimizer: {optimizer}, steps: 12, "
        "points: 40, lr: 0.001, noise: 0.5}\nsweep: {seed: {count: 9}}\n"
        "record: {every: 1, of: [loss, gradient_norm, coefficients]}"
    )
    assert rows_of(text, "compiled").equals(rows_of(text, "eager"))


@pytest.mark.parametrize("degree", [0, 1, 3, 9, 30])
@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name not in SQUARED])
def test_updates_over_all_points_are_autograds_to_rounding(objective: str, degree: int) -> None:
    """With a rate of 1 a coefficient changes by its entry of the gradient, as large as N."""
    text = (
        f"fit: {{degree: {degree}, objective: {objective}, steps: 3, points: 40, lr: 1.0, "
        "noise: 1, dtype: float64}\nsweep: {seed: {count: 9}}\n"
        "record: {every: 1, of: [loss, gradient_norm, coefficients]}"
    )
    one, other = rows_of(text, "compiled"), rows_of(text, "eager")
    for name in ("loss_history", "gradient_norm_history", "coefficients_history"):
        found, want = (np.array(rows[name].to_pylist()) for rows in (one, other))
        np.testing.assert_allclose(found, want, rtol=1e-12, atol=1e-12 * np.abs(want).max())


def test_an_operation_that_cannot_be_emitted_is_refused() -> None:
    with pytest.raises(NotImplementedError, match=r"no elementwise operation.*cosh"):
        trace(torch.cosh, 1, torch.float32)


def test_what_no_output_needs_is_not_traced() -> None:
    def wasteful(x: torch.Tensor) -> torch.Tensor:
        _ = x * 3.0
        return x * x

    graph = forward(wasteful, 1, torch.float32)
    assert [operation.name for operation in graph.operations.values()] == ["mul"]


@pytest.mark.parametrize("text", BATCHES, ids=range(len(BATCHES)))
def test_lanes_and_layout_change_no_bit(text: str) -> None:
    """A lane alone on fits side by side is what a thread of a GPU computes."""
    batch = batch_of(f"{text}\n{RECORD}")
    want = batch.by_kernel(8, 8)
    assert len(want) == 6
    for lanes, width in ((1, 70), (4, 4), (16, 16), (32, 32), (64, 64)):
        assert batch.by_kernel(lanes, width) == want, lanes
    result = batch.compiled()
    assert want[0] == np.ascontiguousarray(result.coefficients_BM.T).tobytes()
    assert want[1] == result.steps_taken_B.tobytes()


@pytest.mark.parametrize("text", BATCHES[2:])
def test_the_number_of_passes_over_points_changes_no_bit(text: str) -> None:
    batch = batch_of(f"{text}\n{RECORD}")
    want = batch.by_kernel(8, 8)
    for pass_size, lanes in ((1, 8), (2, 1), (3, 32)):
        assert batch.by_kernel(lanes, 32, pass_size) == want, pass_size


@pytest.mark.parametrize("level", ["x86-64-v3", "x86-64-v4"])
def test_vectors_on_the_stack_are_aligned(level: str) -> None:
    """Where they were not, many lay across two cache lines."""
    if not runs("x86-64-v2"):
        pytest.skip("this machine is no x86-64")
    machine = cpu.Machine(level)
    module = cpu.optimised(cpu_text(iteration("sse", "adam", torch.float32), 64), machine)
    lines = cpu._target(machine).emit_assembly(module).splitlines()
    stored = [line.split()[0] for line in lines if re.search(r"%[yz]mm\d+, .*\(%rsp\)$", line)]
    assert stored.count("vmovaps") > 50
    assert not {"vmovups", "vmovupd", "vmovdqu"} & set(stored)


@pytest.mark.parametrize("level", LEVELS)
def test_rows_have_the_same_bits_for_any_kind_of_cpu(
    level: str, code_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From initial values to the evaluation, by each kernel that there is."""
    if not runs(level):
        pytest.skip(f"this machine does not run {level}")
    texts = [
        (
            "compiled",
            "fit: {degree: 2, steps: 23, points: 37, lr: 0.001, optimizer: adam, noise: 0.5}\n"
            f"sweep: {{objective: [mse, log_cosh], basis: [power, legendre], seed: {{count: 40}}}}"
            f"\n{RECORD}",
        ),
        (
            "compiled",
            "fit: {degree: 2, steps: 23, points: 37, objective: huber, basis: power, target: "
            "sin(x) / (2 + cos(x)) + sqrt(abs(x))}\nsweep: {range: [[-1, 1], [0, 3], [-2, 2]], "
            f"seed: {{count: 15}}}}\n{RECORD}",
        ),
        ("affine", f"fit: {{degree: 2, steps: 99}}\nsweep: {{seed: {{count: 40}}}}\n{RECORD}"),
    ]
    want = [rows_of(text, engine) for engine, text in texts]
    forget(monkeypatch)
    monkeypatch.setattr(cpu, "_host", lambda: (level, ""))
    for (engine, text), rows in zip(texts, want, strict=True):
        assert rows_of(text, engine).equals(rows)


@pytest.mark.parametrize("seconds", [1e-9, 1e9])
@pytest.mark.parametrize("text", BATCHES, ids=range(len(BATCHES)))
def test_how_work_is_cut_into_calls_changes_no_bit(
    text: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    learn = compiled.Slices._learn

    def counted(self: compiled.Slices, done: int, before: float) -> None:
        calls.append(done)
        learn(self, done, before)

    monkeypatch.setattr(compiled.Slices, "_learn", counted)
    batch = batch_of(f"{text}\n{RECORD}")
    want = batch.compiled()
    calls.clear()
    monkeypatch.setattr(compiled, "CALL_S", seconds)
    monkeypatch.setattr(compiled, "_FIRST_TERMS", 1 if seconds < 1 else 1 << 40)
    found = batch.compiled()
    assert len(calls) == 1 if seconds > 1 else len(calls) >= 33
    assert found.coefficients_BM.tobytes() == want.coefficients_BM.tobytes()
    assert found.steps_taken_B.tobytes() == want.steps_taken_B.tobytes()
    assert found.status_B.tobytes() == want.status_B.tobytes()
    for name, values in want.recorded.items():
        before = np.array(batch.inputs.updates)[:, None] < want.steps_taken_B
        assert found.recorded[name][before].tobytes() == values[before].tobytes()


def test_a_signal_is_answered_between_two_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """These updates would take an hour."""
    begun, learn = threading.Event(), compiled.Slices._learn

    def told(self: compiled.Slices, done: int, before: float) -> None:
        learn(self, done, before)
        begun.set()

    def interrupt() -> None:
        begun.wait()
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(compiled.Slices, "_learn", told)
    batch = batch_of("fit: {degree: 3, steps: 10}\nsweep: {seed: {count: 16}}\nrecord: none")
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        batch.compiled(steps=10**12)
    thread.join()
