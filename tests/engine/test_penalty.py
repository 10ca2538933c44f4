"""Penalties in elementary arithmetic: to the last places of mpmath's, and for no numbers."""

from collections.abc import Callable
from dataclasses import replace

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch
from engine_batches import batch_of
from engines import CPU

from polyfit.engine import penalty
from polyfit.engine.compiled import fit_compiled


def true_log_cosh(x: float) -> float:
    return float(mpmath.log(mpmath.cosh(mpmath.mpf(x))))


def true_tanh(x: float) -> float:
    return float(mpmath.tanh(mpmath.mpf(x)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_emitted_log_cosh_and_its_slope_are_those_of_mpmath(dtype: torch.dtype) -> None:
    """One point whose datum is 0: the residual is the coefficient, at first the initial value."""
    batch = batch_of(
        "fit: {degree: 0, points: 1, objective: log_cosh, target: 0 * x, steps: 1, "
        f"lr: 0.001, dtype: {str(dtype).removeprefix('torch.')}}}\n"
        "record: {every: 1, of: [loss, gradient_norm]}"
    )
    sizes = np.concatenate([np.logspace(-15, 2.5, 200), np.linspace(0, 12, 400), [38, 39, 45]])
    x = np.concatenate([sizes, -sizes, [0.6249999, 0.625, 7.9, 7.9000001]]).astype(np.float32)
    same = batch.inputs.take(np.zeros(len(x), dtype=np.int64))
    result = fit_compiled(replace(same, start_BM=x[:, None]), CPU)
    loss, slope = (result.recorded[name][0] for name in ("loss", "gradient_norm"))
    with mpmath.workdps(80):
        values = np.array([true_log_cosh(one) for one in x.tolist()])
        slopes = np.array([abs(true_tanh(one)) for one in x.tolist()])
    epsilon = torch.finfo(dtype).eps
    np.testing.assert_allclose(loss, values, rtol=2 * epsilon, atol=2 * epsilon)
    np.testing.assert_allclose(loss, values, rtol=4 * epsilon)
    np.testing.assert_allclose(slope, slopes, rtol=4e-7 if dtype == torch.float32 else 4 * epsilon)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_emitted_slope_of_l1_is_the_sign(dtype: torch.dtype) -> None:
    """One point whose datum is 0, with a rate of 1: what is left is x less the sign of x."""
    batch = batch_of(
        "fit: {degree: 0, points: 1, objective: l1, target: 0 * x, steps: 1, lr: 1.0, "
        f"dtype: {str(dtype).removeprefix('torch.')}}}\nrecord: none"
    )
    least, most = 2.0**-149, 2.0**120
    x = np.array([0.0, -0.0, least, -least, 0.75, -0.75, 1.0, most, -most])
    same = batch.inputs.take(np.zeros(len(x), dtype=np.int64))
    found = fit_compiled(replace(same, start_BM=x[:, None]), CPU).coefficients_BM[:, 0]
    number = x.astype(found.dtype)
    np.testing.assert_array_equal(found, number - np.sign(number))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_written_exponential_and_logarithm_are_those_of_mpmath(dtype: torch.dtype) -> None:
    x = -torch.cat([torch.linspace(0, 78, 500), torch.logspace(-30, 0, 200)]).to(dtype)
    found = penalty._exponential(x).double().numpy()
    epsilon = torch.finfo(dtype).eps
    with mpmath.workdps(40):
        want = np.array([float(mpmath.exp(mpmath.mpf(one))) for one in x.tolist()])
    np.testing.assert_allclose(found, want, rtol=2 * epsilon)
    x = torch.cat([torch.linspace(0, 1, 500), torch.logspace(-30, 0, 200)]).to(dtype)
    found = penalty._log_of_share(x).double().numpy()
    with mpmath.workdps(40):
        want = np.array([float(mpmath.log(2 / (1 + mpmath.mpf(one)))) for one in x.tolist()])
    np.testing.assert_allclose(found, want, rtol=2 * epsilon, atol=epsilon)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("penalties", [penalty.PENALTIES, penalty.SMOOTH_PENALTIES])
def test_the_log_cosh_of_torch_has_all_its_digits(
    penalties: dict[str, Callable[[torch.Tensor], torch.Tensor]], dtype: torch.dtype
) -> None:
    sizes = torch.cat([torch.logspace(-15, 2.5, 300), torch.linspace(0, 2, 400)]).to(dtype)
    x = torch.cat([sizes, -sizes]).requires_grad_()
    loss = penalties["log_cosh"](x)
    (slope,) = torch.autograd.grad(loss.sum(), x)
    with mpmath.workdps(80):
        values = np.array([true_log_cosh(one) for one in x.tolist()])
        slopes = np.array([true_tanh(one) for one in x.tolist()])
    epsilon = torch.finfo(dtype).eps
    np.testing.assert_allclose(loss.detach().double().numpy(), values, rtol=4 * epsilon)
    np.testing.assert_allclose(slope.double().numpy(), slopes, rtol=4 * epsilon)


def test_the_smooth_log_cosh_has_second_derivatives_everywhere() -> None:
    x = torch.tensor([0.0, 1e-9, -0.3, 0.625, 3.0, 30.0, -1e30], dtype=torch.float64)
    x.requires_grad_()
    loss = penalty.SMOOTH_PENALTIES["log_cosh"](x)
    (slope,) = torch.autograd.grad(loss.sum(), x, create_graph=True)
    (found,) = torch.autograd.grad(slope.sum(), x)
    want = 1.0 - np.tanh(x.detach().numpy()) ** 2
    np.testing.assert_allclose(found.numpy(), want, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("objective", ["huber", "l1", "log_cosh"])
def test_written_penalties_keep_what_is_no_number(objective: str, dtype: torch.dtype) -> None:
    some = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0], dtype=dtype)
    found = penalty.ELEMENTARY_PENALTIES[objective](some)
    assert found[0].isnan()
    assert not found[1:3].isfinite().any()
    assert found[3:].tolist() == [0.0, 0.0]
