"""The tutorial's fit as others do it: what ``make bench`` runs beside polyfit.

A peer is a function that prepares everything outside the clock and returns its ``Work``. The job
is the tutorial's: 2000 points of sin(x) on [-pi, pi], a cubic in powers of x, 2000 steps of
gradient descent at 1e-6, float32; an objective other than the sum of squares where one is named.
Fit k starts from the four numbers that torch draws for seed k (``starts``). Each peer imports
its own framework, so that a process holds no other's threads.

Run as a script this is the tutorial itself: ``python tests/bench/peers.py``.
"""

import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

__all__ = [
    "POINTS",
    "RATE",
    "STEPS",
    "Work",
    "jax_points",
    "jax_reduced",
    "least_squares",
    "loop",
    "matmul",
    "polyfits",
    "ray_tasks",
    "ray_tune",
    "torch_compiled",
    "torch_vmap",
    "tutorial",
]

POINTS: Final = 2000
STEPS: Final = 2000
RATE: Final = 1e-6
DEGREE: Final = 3
SIZE: Final = DEGREE + 1

TRIAL_STEPS: Final = 100
"""Steps of a try, where a peer has several forms and the fastest is kept."""

DRAWN: Final = 1 << 14
"""Seeds from 0 on that torch is asked for."""

TRIES: Final = 3
TRY_S: Final = 0.2
LOG_2: Final = math.log(2.0)


def _nothing() -> None:
    pass


@dataclass(slots=True)
class Work:
    """``run`` does so many units of work: fits, where not told otherwise.

    It returns coefficients, shape (some fits, 4), the first fit's first, or None. ``note`` tells
    how, for the table. ``close`` lets go of what the work holds.
    """

    units: int
    run: Callable[[], Any]
    note: str = ""
    close: Callable[[], None] = _nothing


def starts(fits: int) -> Any:
    """Start values of seeds 0 to ``fits`` - 1, as torch draws them: a tensor (fits, 4).

    From ``DRAWN`` on they repeat: what they are changes no time.
    """
    import torch

    generator = torch.Generator()
    drawn = torch.stack(
        [torch.randn(SIZE, generator=generator.manual_seed(k)) for k in range(min(fits, DRAWN))]
    )
    return drawn.repeat(-(-fits // DRAWN), 1)[:fits]


# --- the tutorial's loop ---------------------------------------------------------------------


def tutorial(steps: int = STEPS, objective: str = "sse", seed: int = 0, tell: bool = True) -> Any:
    """PyTorch's tutorial "PyTorch: Tensors and autograd", with a seed; returns a, b, c, d."""
    import torch

    torch.manual_seed(seed)
    x = torch.linspace(-math.pi, math.pi, POINTS)
    y = torch.sin(x)
    a, b, c, d = (torch.randn((), requires_grad=True) for _ in range(SIZE))
    for t in range(steps):
        y_pred = a + b * x + c * x**2 + d * x**3
        loss = _torch_loss(objective, y_pred, y)
        if tell and t % 100 == 99:
            print(t, loss.item())
        loss.backward()
        with torch.no_grad():
            for weight in (a, b, c, d):
                assert weight.grad is not None
                weight -= RATE * weight.grad
                weight.grad = None
    if tell:
        values = [weight.item() for weight in (a, b, c, d)]
        print("Result: y = {} + {} x + {} x^2 + {} x^3".format(*values))
    return torch.stack((a, b, c, d)).detach()


def _torch_loss(objective: str, y_pred: Any, y: Any) -> Any:
    """The objective as torch's user would write it down."""
    import torch

    match objective:
        case "huber":
            return torch.nn.functional.huber_loss(y_pred, y, reduction="sum")
        case "log_cosh":
            return torch.log(torch.cosh(y_pred - y)).sum()
        case "l1":
            return (y_pred - y).abs().sum()
    return (y_pred - y).pow(2).sum()


def loop(objective: str = "sse") -> Work:
    """The tutorial's loop, one fit after the other; its losses are not printed."""
    import torch

    torch.set_num_threads(1)
    return Work(1, lambda: tutorial(objective=objective, tell=False).numpy()[None])


# --- the loop on many cores ------------------------------------------------------------------


def _ray(cores: int) -> Any:
    """A Ray of our own on this machine, for this process alone."""
    import ray

    ray.init(
        address="local",
        num_cpus=cores,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    return ray


def _fit_on_one_thread(seed: int) -> Any:
    import torch

    torch.set_num_threads(1)
    return tutorial(seed=seed, tell=False).numpy()


def ray_tasks(cores: int, each: int = 4) -> Work:
    """The loop as Ray tasks, one fit each."""
    ray = _ray(cores)
    task = ray.remote(num_cpus=1)(_fit_on_one_thread)
    fits = each * cores
    return Work(
        fits, lambda: ray.get([task.remote(k) for k in range(fits)]), "all cores", ray.shutdown
    )


def ray_tune(cores: int, each: int = 2) -> Work:
    """The loop as Ray Tune trials over a grid of seeds."""
    from ray import tune

    ray = _ray(cores)
    fits = each * cores

    def trial(config: dict[str, Any]) -> dict[str, float]:
        return {"a": float(_fit_on_one_thread(config["seed"])[0])}

    def run() -> None:
        with tempfile.TemporaryDirectory(prefix="pf") as folder:
            found = tune.Tuner(
                tune.with_resources(trial, {"cpu": 1}),
                param_space={"seed": tune.grid_search(list(range(fits)))},
                run_config=tune.RunConfig(storage_path=folder, verbose=0),
            ).fit()
        if found.num_errors or len(found) != fits:
            raise RuntimeError(f"{found.num_errors} of {fits} trials failed")

    return Work(fits, run, f"all cores; extrapolated from {fits} trials", ray.shutdown)


# --- batched over all points -----------------------------------------------------------------


def fastest(candidates: Iterable[tuple[str, int, Callable[[], Any]]]) -> str:
    """The name of the fastest of (name, fits, try), by the best of its tries."""
    rates = {}
    for name, fits, attempt in candidates:
        attempt()
        times: list[float] = []
        while len(times) < TRIES or sum(times) < TRY_S:
            start = time.perf_counter()
            attempt()
            times.append(time.perf_counter() - start)
        rates[name] = fits / min(times)
    return max(rates, key=lambda name: rates[name])


def torch_vmap(batches: Sequence[int] = (32, 128, 512)) -> Work:
    """``torch.func``: the gradient of one fit's loss over all points, vmapped over fits."""
    import torch

    torch.set_num_threads(1)
    x = torch.linspace(-math.pi, math.pi, POINTS)
    y = torch.sin(x)
    V = torch.stack([x**k for k in range(SIZE)])

    def written_out(w: Any) -> Any:
        return (w[0] + w[1] * x + w[2] * x**2 + w[3] * x**3 - y).pow(2).sum()

    def matrix(w: Any) -> Any:
        return (w @ V - y).pow(2).sum()

    def run(loss: Callable[[Any], Any], w: Any, steps: int) -> Any:
        gradient = torch.func.vmap(torch.func.grad(loss))
        for _ in range(steps):
            w = w - RATE * gradient(w)
        return w.numpy()

    forms = {
        f"{loss.__name__.replace('_', ' ')}, batch of {batch}": (loss, batch)
        for loss in (written_out, matrix)
        for batch in batches
    }
    name = fastest(
        (name, batch, partial(run, loss, starts(batch), TRIAL_STEPS))
        for name, (loss, batch) in forms.items()
    )
    loss, batch = forms[name]
    return Work(batch, partial(run, loss, starts(batch), STEPS), name)


def torch_compiled(objective: str = "sse", device: str = "cpu", batch: int = 1 << 17) -> Work:
    """One plain ``torch.compile`` of an update by autograd, all fits in one batch, in a loop.

    The squared objective is reduced by QR, its rows written out; the others go over all points.
    The forms: one update in a call, and ten.
    """
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no processes beside this one
    import torch

    torch.set_num_threads(1)
    loss = _torch_reduced() if objective == "sse" else _torch_points(objective, device)
    start = starts(batch).T.contiguous().to(device)

    def several(updates: int) -> Callable[[Any], Any]:
        def call(w: Any) -> Any:
            for _ in range(updates):
                w = w - RATE * torch.func.grad(loss)(w)
            return w

        return torch.compile(call)

    def run(call: Callable[[Any], Any], calls: int) -> Any:
        w = start
        for _ in range(calls):
            w = call(w)
        return w.T.cpu().numpy()

    forms = {f"batch of {batch}, updates in a call: {k}": (k, several(k)) for k in (1, 10)}
    name = fastest(
        (name, batch, partial(run, call, TRIAL_STEPS // updates))
        for name, (updates, call) in forms.items()
    )
    updates, call = forms[name]
    return Work(batch, partial(run, call, STEPS // updates), name)


def _torch_reduced() -> Callable[[Any], Any]:
    """The loss of all fits together, of coefficients (4, fits), by the four rows of R."""
    R, q = (found.tolist() for found in _reduced())

    def loss(w: Any) -> Any:
        total: Any = 0.0
        for i in range(SIZE):
            total = total + (sum(R[i][j] * w[j] for j in range(i, SIZE)) - q[i]).pow(2)
        return total.sum()

    return loss


def _torch_points(objective: str, device: str) -> Callable[[Any], Any]:
    """The loss of all fits together, of coefficients (4, fits), over all points."""
    import torch

    x = torch.linspace(-math.pi, math.pi, POINTS, device=device)
    y = torch.sin(x)

    def loss(w: Any) -> Any:
        predicted = w[-1][:, None]
        for k in reversed(range(SIZE - 1)):
            predicted = predicted * x + w[k][:, None]
        return _torch_loss(objective, predicted, y.expand_as(predicted))

    return loss


def _reduced() -> tuple[Any, Any]:
    """R (4, 4) and q (4,), float32: the sum of squares is that of R c - q, and a constant."""
    import numpy as np

    x = np.linspace(-math.pi, math.pi, POINTS)
    Q, R = np.linalg.qr(np.vander(x, SIZE, increasing=True))
    return R.astype(np.float32), (Q.T @ np.sin(x)).astype(np.float32)


def _jax_on(platform: str) -> None:
    """Have JAX compute on "cpu" or "gpu", and leave the GPU's memory to others too.

    Raises:
        RuntimeError: this JAX has no such device.
    """
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    import jax

    jax.config.update("jax_default_device", jax.devices(platform)[0])
    jax.config.update("jax_default_matmul_precision", "float32")  # a GPU would take less


JaxForm = tuple[int, Callable[[int], Callable[[Any], Any]], Callable[[Any], Any]]
"""Fits, a program for so many steps, and the start values in the program's layout."""


def _jax_work(forms: dict[str, JaxForm], gather: Callable[[Any], Any]) -> Work:
    """The fastest of ``forms``; ``gather`` makes coefficients (fits, 4) of what it returns."""
    import jax

    def prepared(steps: int, name: str) -> Callable[[], Any]:
        fits, program, lay_out = forms[name]
        compiled, start = program(steps), lay_out(starts(fits).numpy())
        return lambda: jax.block_until_ready(compiled(start))

    name = fastest((name, form[0], prepared(TRIAL_STEPS, name)) for name, form in forms.items())
    run = prepared(STEPS, name)
    return Work(forms[name][0], lambda: gather(run()), name)


def _jax_penalty(objective: str) -> Callable[[Any], Any]:
    import jax.numpy as jnp

    def huber(residual: Any) -> Any:
        size = jnp.abs(residual)
        return jnp.where(size <= 1, 0.5 * residual * residual, size - 0.5)

    def log_cosh(residual: Any) -> Any:
        size = jnp.abs(residual)
        return size + jnp.log1p(jnp.exp(-2 * size)) - LOG_2

    known: dict[str, Callable[[Any], Any]] = {
        "sse": lambda r: r * r, "l1": jnp.abs, "huber": huber, "log_cosh": log_cosh,
    }  # fmt: skip
    return known[objective]


def _jax_descent(gradient: Callable[[Any], Any], steps: int, unrolled: int, state: Any) -> Any:
    """``steps`` updates of any tree of arrays, ``unrolled`` of them in the loop's body."""
    import jax

    def body(_: Any, state: Any) -> Any:
        for _ in range(unrolled):
            state = jax.tree.map(lambda w, g: w - RATE * g, state, gradient(state))
        return state

    return jax.lax.fori_loop(0, steps // unrolled, body, state)


def jax_points(
    objective: str = "sse",
    best: bool = True,
    platform: str = "cpu",
    batches: Sequence[int] = (8, 16, 32, 64),
) -> Work:
    """JAX over all points, ``jit(vmap(fori_loop))``; with ``best`` the fastest of several layouts.

    The layouts: a row of coefficients per fit times the design matrix, and one vector per
    coefficient with Horner's rule written out, at several batches and numbers of unrolled steps.
    """
    _jax_on(platform)
    import jax
    import jax.numpy as jnp
    import numpy as np

    x = jnp.asarray(np.linspace(-math.pi, math.pi, POINTS, dtype=np.float32))
    y = jnp.sin(x)
    V = jnp.stack([x**k for k in range(SIZE)])
    penalty = _jax_penalty(objective)

    def vmapped(unrolled: int, steps: int) -> Any:
        gradient = jax.grad(lambda w: penalty(w @ V - y).sum())
        return jax.jit(jax.vmap(partial(_jax_descent, gradient, steps, unrolled)))

    def vectors(unrolled: int, steps: int) -> Any:
        def loss(w: Any) -> Any:
            predicted = w[-1][:, None]
            for value in reversed(w[:-1]):
                predicted = predicted * x + value[:, None]
            return penalty(predicted - y).sum()

        return jax.jit(partial(_jax_descent, jax.grad(loss), steps, unrolled))

    def columns(start: Any) -> Any:
        return tuple(jnp.asarray(column) for column in start.T)

    def gather(state: Any) -> Any:
        return np.stack(state, axis=1) if isinstance(state, tuple) else np.asarray(state)

    plain: dict[str, JaxForm] = {
        "jit(vmap(fori_loop)), batch of 256": (256, partial(vmapped, 1), jnp.asarray)
    }
    if not best:
        return _jax_work(plain, gather)
    tried: dict[str, JaxForm] = {}
    for batch in batches:
        for k in (1, 5):
            ending = f"batch of {batch}, steps unrolled: {k}"
            tried[f"rows times matrix, {ending}"] = (batch, partial(vmapped, k), jnp.asarray)
        tried[f"vectors, batch of {batch}"] = (batch, partial(vectors, 1), columns)
    return _jax_work(tried, gather)


def jax_reduced(
    platform: str = "cpu",
    batches: Sequence[int] = (2048, 8192, 16384),
    unrolled: Sequence[int] = (1, 5, 10, 20),
) -> Work:
    """JAX over the problem reduced by QR to four rows, in the fastest of several forms.

    The rows are written out. The forms: the state as one (4, B) array or as four vectors, one to
    twenty steps in the loop's body, several batches.
    """
    _jax_on(platform)
    import jax
    import jax.numpy as jnp
    import numpy as np

    R, q = _reduced()

    def loss(w: Any) -> Any:
        total = 0.0
        for i in range(SIZE):
            residual = sum(R[i, j] * w[j] for j in range(i, SIZE)) - q[i]
            total = total + residual * residual
        return jnp.sum(total)

    def program(unrolled: int, steps: int) -> Any:
        return jax.jit(partial(_jax_descent, jax.grad(loss), steps, unrolled))

    def block(start: Any) -> Any:
        return jnp.asarray(start.T)

    def vectors(start: Any) -> Any:
        return tuple(block(start))

    forms: dict[str, JaxForm] = {}
    for batch in batches:
        for k in unrolled:
            ending = f"batch of {batch}, steps unrolled: {k}"
            forms[f"one array, {ending}"] = (batch, partial(program, k), block)
        forms[f"vectors, batch of {batch}"] = (batch, partial(program, 1), vectors)
    return _jax_work(forms, lambda state: np.stack([np.asarray(row) for row in state], axis=1))


# --- another question ------------------------------------------------------------------------

CLOSED = "another question: the optimum in closed form, no gradient descent"


def polyfits() -> Work:
    """``numpy.polyfit``, one call per fit."""
    import numpy as np

    x = np.linspace(-math.pi, math.pi, POINTS)
    y = np.sin(x)

    def run() -> None:
        np.polyfit(x, y, DEGREE)

    return Work(1, run, CLOSED)


def least_squares(fits: int = 4096) -> Work:
    """One ``numpy.linalg.lstsq`` for many right-hand sides."""
    import numpy as np

    x = np.linspace(-math.pi, math.pi, POINTS)
    V = np.vander(x, SIZE, increasing=True)
    Y = np.repeat(np.sin(x)[:, None], fits, axis=1)

    def run() -> None:
        np.linalg.lstsq(V, Y, rcond=None)

    return Work(fits, run, CLOSED)


def matmul(size: int = 2048) -> Work:
    """A float32 product of square matrices, the unit being a floating-point operation."""
    import torch

    torch.set_num_threads(1)
    left, right = torch.randn(size, size), torch.randn(size, size)
    out = torch.empty(size, size)

    def run() -> None:
        torch.mm(left, right, out=out)

    return Work(2 * size**3, run, f"torch.mm of {size} x {size}, float32")


if __name__ == "__main__":
    tutorial()
