"""Grids, bases, QR reduction, rates, optimum: all in float64 on the CPU, many problems at once.

Shapes: ``N`` points, ``M`` = degree + 1 coefficients, ``P`` problems. Matrices are kept with the
points along the last axis (``MN``: one row per basis function). A problem has the same bits
whichever others are set up beside it: arithmetic on problems is elementwise, or a sum along one
problem's own contiguous row, which numpy and the BLAS add in an order that depends on its length
alone, as long as the BLAS stays on one thread.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from polyfit.numerics.formula import Formula
from polyfit.spec.fields import Optimizer, Rate

__all__ = [
    "Design",
    "Frame",
    "Grid",
    "basis_functions",
    "curvature",
    "design",
    "frame",
    "functions_at",
    "functions_on",
    "holds_problem",
    "holds_rate",
    "in_powers",
    "learning_rate",
    "noise",
    "noisy",
    "reduce",
    "stability_limit",
    "sum_of",
    "target_values",
]

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

_SMALL: Final = 1 << 16  # numbers in a frame of which many are kept, half a megabyte each
_CACHED: Final = 1 << 15  # numbers of a chunk of problems, a quarter megabyte: in the cache
_PASSING: Final = 12_288  # numbers of its passing arrays: from 128 KB on, malloc maps fresh pages
ADAM_RATE: Final = 0.01
NEWTON_RATE: Final = 1.0


def _chunks(count: int, width: int, most: int) -> Iterator[slice]:
    """``count`` rows of ``width`` numbers, at most ``most`` numbers at a time, or one row."""
    rows = max(1, most // width)
    return (slice(low, min(low + rows, count)) for low in range(0, count, rows))


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The points and the functions that a problem is made of.

    ``low`` and ``high`` are two numbers, or float64 arrays of shape (P,) for P grids that differ
    in their range alone; what is made of those has a first axis P.
    """

    low: float | Array
    high: float | Array
    points: int
    degree: int
    basis: str

    @property
    def middle(self) -> float | Array:
        return self.low + (self.high - self.low) / 2

    @property
    def half(self) -> float | Array:
        """Half the width, less what rounding would put beyond the range: a target may end there."""
        half, middle = (self.high - self.low) / 2, self.middle
        within = np.minimum(half, np.minimum(middle - self.low, self.high - middle))
        beyond = (middle - within < self.low) | (middle + within > self.high)
        within = np.where(beyond, np.nextafter(within, 0.0), within)
        return np.where(within > 0.0, within, half)[()]  # no number lies between two neighbours

    def t(self) -> Array:
        """The points on [-1, 1], shape (N,), shared and read-only."""
        return _unit(self.points)

    def x(self) -> Array:
        """The points on [low, high], shape (N,) or (P, N)."""
        return _column(self.middle) + _column(self.half) * self.t()


@lru_cache(maxsize=16)
def _unit(points: int) -> Array:
    t = np.linspace(-1.0, 1.0, points)
    t.flags.writeable = False
    return t


def _column(values: float | Array) -> Array:
    """One number per grid, to go with rows of numbers: shape (1,) or (P, 1)."""
    return np.asarray(values)[..., None]


# --- bases -----------------------------------------------------------------------------------


def basis_functions(basis: str, degree: int, argument: Array) -> Iterator[Array]:
    """The basis functions at ``argument`` (any shape), one after the other, by their recurrences.

    ``argument`` is t for Chebyshev and Legendre polynomials, x for powers. Yields degree + 1
    arrays of its shape, not to be written to; what is beyond float64 is infinite or NaN.
    """
    before = now = np.ones_like(argument)
    for k in range(degree):
        yield now
        with np.errstate(all="ignore"):
            if k == 0 or basis == "power":
                before, now = now, now * argument
            elif basis == "chebyshev":
                before, now = now, 2.0 * argument * now - before
            else:
                before, now = now, ((2 * k + 1) * argument * now - k * before) / (k + 1)
    yield now


def functions_at(grid: Grid, x: Array) -> Array:
    """The basis functions of ``grid`` at any ``x``: (n,) gives (M, n), (P, n) gives (P, M, n)."""
    if grid.basis == "power":
        return _functions(grid, x)
    with np.errstate(all="ignore"):
        return _functions(grid, (x - _column(grid.middle)) / _column(grid.half))


def functions_on(grid: Grid) -> Array:
    """The basis functions at the points: (M, N), or (P, M, N) for powers on P ranges."""
    return _functions(grid, grid.x() if grid.basis == "power" else grid.t())


def _functions(grid: Grid, argument: Array) -> Array:
    rows = np.empty((grid.degree + 1, *argument.shape))
    functions = basis_functions(grid.basis, grid.degree, argument)
    for row, function in zip(rows, functions, strict=True):
        row[...] = function
    return np.moveaxis(rows, 0, -2)


def _matrices(grid: Grid) -> Array:
    """Zeros, shape (M, M) or (P, M, M), with the problems along the last axis of the memory."""
    size = grid.degree + 1
    return np.moveaxis(np.zeros((size, size, *np.shape(grid.low))), (0, 1), (-2, -1))


def in_powers(grid: Grid) -> Array:
    """The basis functions as polynomials in x: row k holds function k, shape (M, M) or (P, M, M).

    With coefficients c, the power of x number j has the coefficient sum(c[k] * row[k][j]).
    """
    rows = _matrices(grid)
    rows[..., 0, 0] = 1.0
    half, middle = _column(grid.half), _column(grid.middle)
    with np.errstate(all="ignore"):
        slope, offset = 1.0 / half, -middle / half
        for k in range(grid.degree):
            shifted = offset * rows[..., k, :]
            shifted[..., 1:] += slope * rows[..., k, :-1]
            if grid.basis == "power":
                rows[..., k + 1, k + 1] = 1.0
            elif k == 0:
                rows[..., 1, :] = shifted
            elif grid.basis == "chebyshev":
                rows[..., k + 1, :] = 2.0 * shifted - rows[..., k - 1, :]
            else:
                rows[..., k + 1, :] = ((2 * k + 1) * shifted - k * rows[..., k - 1, :]) / (k + 1)
    return rows


def _in_chebyshev(grid: Grid) -> Array:
    """The basis functions as Chebyshev series in t: column k holds function k."""
    columns = _matrices(grid)
    columns[..., 0, 0] = 1.0
    half, middle = _column(grid.half), _column(grid.middle)
    for k in range(grid.degree):
        if grid.basis == "chebyshev":
            columns[..., k + 1, k + 1] = 1.0
            continue
        by_t = _times_t(columns[..., k])
        if grid.basis == "power":
            columns[..., k + 1] = middle * columns[..., k] + half * by_t
        else:
            columns[..., k + 1] = ((2 * k + 1) * by_t - k * columns[..., k - 1]) / (k + 1)
    return columns


def _times_t(series: Array) -> Array:
    """A Chebyshev series times t, shape (..., M): t T_j is the mean of T_(j+1) and T_|j-1|."""
    product = np.zeros_like(series)
    product[..., 1:] = 0.5 * series[..., :-1]
    product[..., 1] += 0.5 * series[..., 0]
    product[..., :-1] += 0.5 * series[..., 1:]
    return product


# --- designs ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Orthonormal rows ``Q_MN`` that span the polynomials on the points.

    ``R_MM`` is upper triangular: the Chebyshev polynomials at the points are R'Q.
    """

    Q_MN: Array
    R_MM: Array


def frame(points: int, degree: int) -> Frame:
    """The frame of all grids of so many points and that degree, whatever their basis and range.

    Householder QR: Golub and Van Loan, Matrix Computations, 4th ed., algorithms 5.1.1 and 5.2.1,
    and Q by backward accumulation, section 5.1.6. The arrays are shared and read-only.
    """
    small = points * (degree + 1) <= _SMALL
    return (_small_frame if small else _large_frame)(points, degree)


def _framed(points: int, degree: int) -> Frame:
    grid = Grid(-1.0, 1.0, points, degree, "chebyshev")
    work = _functions(grid, grid.t())
    triangle = _matrices(grid)
    for k in range(degree + 1):
        v = work[k, k:]
        pivot = -np.copysign(np.sqrt((v * v).sum()), v[0])
        triangle[:k, k], triangle[k, k] = work[k, :k], pivot
        v[0] -= pivot
        v /= np.sqrt((v * v).sum())
        _reflect(work[k + 1 :, k:], v)
    for k in reversed(range(degree + 1)):
        v = work[k, k:].copy()
        work[k] = 0.0
        work[k, k] = 1.0
        _reflect(work[k:, k:], v)
    work.flags.writeable = triangle.flags.writeable = False
    return Frame(work, triangle)


def _reflect(rows: Array, v: Array) -> None:
    for row in rows:  # one by one: the largest design fills a quarter of a gigabyte
        row -= (2.0 * (row * v).sum()) * v


_small_frame = lru_cache(maxsize=64)(_framed)
_large_frame = lru_cache(maxsize=1)(_framed)


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """The design matrix of a grid, or of each of P grids.

    ``R_MM``, shape (M, M) or (P, M, M), is upper triangular: the functions at the points are R'Q,
    with Q the grid's frame. ``sigma``, shape () or (P,), is its largest singular value, NaN where
    the square of that is beyond float64.
    """

    grid: Grid
    R_MM: Array
    sigma: Array

    @property
    def functions_MN(self) -> Array:
        """The basis functions at the points, shape (M, N) or (P, M, N).

        Made anew each time: they are large, and the reduction does without them.
        """
        functions, shape = functions_on(self.grid), np.shape(self.grid.low)
        return functions if self.grid.basis == "power" else np.broadcast_to(
            functions, (*shape, *functions.shape)
        )  # fmt: skip


def design(grid: Grid) -> Design:
    """The design of ``grid``: R is the frame's triangle times the basis as Chebyshev series.

    Chebyshev and Legendre do not depend on the range: one triangle serves all. Where a power is
    beyond float64 at the points, R is not finite.
    """
    one = grid if grid.basis == "power" else Grid(-1.0, 1.0, grid.points, grid.degree, grid.basis)
    with np.errstate(all="ignore"):
        series = _in_chebyshev(one)
        triangle = frame(grid.points, grid.degree).R_MM
        R = np.zeros_like(series)
        for j in range(grid.degree + 1):
            R[..., : j + 1, j:] += triangle[: j + 1, j, None] * series[..., j, None, j:]
        sigma = _largest_singular_value(R)
    shape = np.shape(grid.low)
    return Design(grid, np.broadcast_to(R, (*shape, *R.shape[-2:])), np.broadcast_to(sigma, shape))


def _largest_singular_value(R_MM: Array) -> Array:
    """Of each triangle: the root of the largest eigenvalue of R'R, which squaring does not harm.

    R'R, squared again and again, becomes its projector on the largest eigenvalues: those that
    differ by less than their rounding are not told apart, which does not matter. Written out, and
    not left to LAPACK, whose bits depend on the kind of CPU.
    """
    gram = np.zeros_like(R_MM)
    for i in range(R_MM.shape[-1]):
        gram[..., i:, i:] += R_MM[..., i, i:, None] * R_MM[..., i, None, i:]
    finite = np.isfinite(gram).all(axis=(-2, -1))
    sigma = np.full(finite.shape, np.nan)
    # The problems along the last axis: what is done is elementwise over them.
    known = np.ascontiguousarray(np.moveaxis(gram[finite], 0, -1))
    power = known / _trace(known)
    for _ in range(_SQUARINGS):
        squared = np.zeros_like(power)
        for k in range(len(power)):
            squared += power[:, k, None] * power[None, k]
        power = squared / _trace(squared)
    total = np.zeros(known.shape[-1])
    for row in (known * power).reshape(len(power) ** 2, -1):
        total += row
    sigma[finite] = np.sqrt(total)  # the trace of power is 1
    return sigma


_SQUARINGS: Final = 45
"""Largest eigenvalues nearer to each other than 2^-45 of their size count as one."""


def _trace(matrices: Array) -> Array:
    total = np.zeros(matrices.shape[-1])
    for k in range(len(matrices)):
        total += matrices[k, k]
    return total


# --- data ------------------------------------------------------------------------------------


def target_values(target: str, grid: Grid) -> Array:
    """The noise-free target, a checked formula, at the points: shape (N,) or (P, N)."""
    formula, t = Formula(target), grid.t()
    middle, half = (_column(np.ravel(value)) for value in (grid.middle, grid.half))
    values = np.empty((len(half), grid.points))
    for rows in _chunks(len(values), len(t), _PASSING):
        x = half[rows] * t
        x += middle[rows]
        values[rows] = formula(x)
    return values.reshape(*np.shape(grid.low), grid.points)


def noise(noise_seeds: npt.NDArray[np.uint64], points: int) -> Array:
    """Standard normal noise, shape (P, points): a row per seed, shape (P,).

    A row is ``Generator(Philox(key=seed)).standard_normal(points)``, the same for every degree,
    basis, range and number of points; seeds that occur several times are drawn once.
    """
    _, first, of = np.unique(noise_seeds, return_index=True, return_inverse=True)
    rows = np.empty((len(noise_seeds), points))
    # A new generator per seed would first draw a seed of its own from the system.
    bits = np.random.Philox(key=0)
    generator, state = np.random.Generator(bits), bits.state
    for row in first:
        state["state"]["key"][0] = noise_seeds[row]
        bits.state = state
        generator.standard_normal(out=rows[row])
    again = np.flatnonzero(first[of] != np.arange(len(rows)))
    rows[again] = rows[first[of[again]]]
    return rows


def noisy(
    clean_CN: Array, clean_of_P: Index, scale_P: Array, noise_seed_P: npt.NDArray[np.uint64]
) -> Array:
    """The data of P problems, shape (P, N): each has a clean target and ``scale`` times noise."""
    y = noise(noise_seed_P, clean_CN.shape[1])
    with np.errstate(all="ignore"):
        for rows in _chunks(len(y), y.shape[1], _PASSING):
            clean, scale = clean_CN[clean_of_P[rows]], _column(scale_P[rows])
            y[rows] = np.where(scale == 0.0, clean, clean + scale * y[rows])
    return y


# --- reduction -------------------------------------------------------------------------------


def reduce(degree: int, y_PN: Array) -> tuple[Array, Array]:
    """Reduce sums of squares over N points to M rows.

    For every basis, range and c, sum((V'c - y)^2) = sum((R c - q)^2) + r: returns q, shape (P, M),
    and r, shape (P,), the least-squares optimum.

    The residual is taken from y once, without a second orthogonalisation: what rounding leaves in
    it of the polynomials is of the size of its own rounding.
    """
    y_PN = np.ascontiguousarray(y_PN)
    count, points = y_PN.shape
    Q = frame(points, degree).Q_MN
    q, rest = np.empty((count, degree + 1)), np.zeros(count)
    with np.errstate(all="ignore"):
        for rows in _chunks(count, points, _CACHED):
            residual = y_PN[rows].copy()
            for k, row in enumerate(Q):
                q[rows, k] = sum_of(y_PN[rows] * row)
            if points > degree + 1:  # else nothing is left
                for k, row in enumerate(Q):
                    residual -= q[rows, k, None] * row
                rest[rows] = sum_of(residual * residual)
    return q, rest


def sum_of(terms: Array) -> Array:
    """Sums along the last axis in a stated order.

    The terms k, k + 16, k + 32, ... are added one after the other, for k below 16; in the end each
    half of these sums is added to the other. Vectors of 16 numbers add so too.
    """
    points = terms.shape[-1]
    whole = points - points % _LANES
    rows = terms[..., :whole].reshape(*terms.shape[:-1], -1, _LANES)
    lanes = rows.sum(axis=-2) + 0.0  # row after row; no zero is negative
    lanes[..., : points - whole] += terms[..., whole:]
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    total: Array = lanes[..., 0]
    return total


_LANES: Final = 16


# --- rates -----------------------------------------------------------------------------------


def curvature(objective: str, sigma: Array, points: int) -> Array:
    """Lambda, an upper bound of the objective's Hessian; NaN for l1, which has none."""
    with np.errstate(all="ignore"):
        match objective:
            case "sse":
                return 2.0 * sigma * sigma
            case "mse":
                return 2.0 * sigma * sigma / points
            case "huber" | "log_cosh":
                return sigma * sigma
    return np.full_like(sigma, np.nan)


def stability_limit(optimizer: Optimizer, bound: Array) -> Array:
    """The rates from which on gd or momentum diverges on quadratics of curvature ``bound``."""
    with np.errstate(all="ignore"):
        return 2.0 * (1.0 + optimizer.beta) / bound


def learning_rate(
    rates: Sequence[Rate], of_B: Index, optimizer: Optimizer, bound_B: Array
) -> Array:
    """The rate used by each fit, shape (B,): fit b asks for ``rates[of_B[b]]``.

    It may be 0 or not finite, which its fit's status tells.
    """
    numbers = np.array([rate.kind == "number" for rate in rates])
    values = np.array([0.5 if rate.kind == "auto" else rate.value for rate in rates])
    with np.errstate(all="ignore"):
        match optimizer.name:
            case "adam":
                own: float | Array = ADAM_RATE
            case "newton":
                own = NEWTON_RATE
            case _:
                own = values[of_B] * stability_limit(optimizer, bound_B)
    return np.where(numbers[of_B], values[of_B], own)


# --- what can be iterated --------------------------------------------------------------------


def holds_problem(dtype: str, newton: bool, R_PMM: Array, q_PM: Array) -> npt.NDArray[np.bool_]:
    """Which problems ``dtype`` holds, shape (P,): R and q finite, no pivot lost to underflow."""
    info = np.finfo(dtype)
    most, least = float(info.max), float(info.tiny)
    pivots = np.abs(np.diagonal(R_PMM, axis1=1, axis2=2))
    with np.errstate(all="ignore"):
        sound = (np.abs(R_PMM) <= most).all(axis=(1, 2))
        sound &= (np.abs(q_PM) <= most).all(axis=1)
        sound &= (pivots >= least).all(axis=1)
        if newton:  # it squares R
            sound &= ((R_PMM * R_PMM).sum(axis=1) <= most).all(axis=1)
    return np.asarray(sound)


def holds_rate(dtype: str, lr_B: Array) -> npt.NDArray[np.bool_]:
    """Which rates ``dtype`` holds, shape (B,): finite, and not lost to underflow."""
    info = np.finfo(dtype)
    return np.asarray((lr_B >= float(info.tiny)) & (lr_B <= float(info.max)))
