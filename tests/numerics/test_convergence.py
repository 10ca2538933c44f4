"""How fast gradient descent and momentum converge, beside the iteration itself."""

import numpy as np
import pytest

from polyfit.numerics.convergence import NEVER, Descent, Directions


def iterated(descent: Descent, most: np.ndarray, steps: int) -> list[int]:
    """The first update with an excess of at most ``most``; NEVER for none."""
    error, velocity = np.ones_like(descent.z_FM), np.zeros_like(descent.z_FM)
    found = np.full(len(most), NEVER)
    for update in range(steps):
        below = (descent.excess_FM * error * error).sum(axis=1) <= most
        found[below & (found == NEVER)] = update
        velocity = descent.beta * velocity + error
        error = error - descent.z_FM * velocity
    return [int(update) for update in found]


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.99])
def test_the_first_update_is_that_of_the_iteration(beta: float) -> None:
    random = np.random.default_rng(7)
    z = random.uniform(0.003, 2 * (1 + beta) * 0.99, (100, 4))
    z[:, 0] = [1.0, (1 - np.sqrt(beta)) ** 2, 1 + beta, 0.003] * 25  # also roots that are equal
    descent = Descent(z, random.uniform(0, 100, (100, 4)), beta)
    most = 10.0 ** random.uniform(-8, 3, 100)
    assert descent.first_below(most).tolist() == iterated(descent, most, 6000)


def test_a_slow_direction_takes_as_many_updates_as_its_rate_says() -> None:
    ends = [Descent(np.array([[1e-9]]), np.ones((1, 1)), beta) for beta in (0.0, 0.9)]
    needed = [int(descent.first_below(np.array([0.1]))[0]) for descent in ends]
    assert needed == pytest.approx([np.log(10) / 2e-9, np.log(10) / 2e-8], rel=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_above_the_limit_it_never_comes_and_the_excess_grows(beta: float) -> None:
    descent = Descent(np.array([[2 * (1 + beta) * 1.02, 0.5]]), np.ones((1, 2)), beta)
    assert descent.first_below(np.array([0.1])) == NEVER
    after = [descent.excess(np.array([k]))[0] for k in (0, 100, 1000, 10**6)]
    assert after[0] == 2.0
    assert after == sorted(after)
    assert after[-1] == np.inf


def test_the_excess_at_the_start_is_that_of_the_sum_of_squares() -> None:
    random = np.random.default_rng(3)
    R, q = np.triu(random.normal(size=(5, 3, 3))), random.normal(size=(5, 3))
    directions = Directions.of(R)
    start = random.normal(size=(5, 3))
    squares = (np.einsum("fij,fj->fi", R, start) - q) ** 2
    np.testing.assert_allclose(directions.excess(q, start).sum(axis=1), squares.sum(axis=1))
    many = random.normal(size=(20_000, 3))
    drawn = Directions.of(R[:1]).take(np.zeros(20_000, dtype=np.int64))
    mean = drawn.excess(np.repeat(q[:1], 20_000, axis=0), many).mean(axis=0)
    np.testing.assert_allclose(directions.excess(q, None)[0], mean, rtol=0.05)
