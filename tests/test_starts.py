"""Start values: torch's own, bit for bit, whoever else is in the batch."""

import tracemalloc
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyfit import starts
from polyfit.starts import MAX_SIZE, start_values

Seeds = npt.NDArray[np.int64]
LARGEST = 2**32 - 1
EDGES = [0, 1, 2, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 2, LARGEST]


def seeds_of(seeds: list[int] | range) -> Seeds:
    return np.array(seeds, dtype=np.int64)


@cache
def mixed_seeds() -> Seeds:
    """Edges, neighbours and seeds from everywhere: 3,000 of them."""
    anywhere = np.random.default_rng(0).integers(0, 2**32, 2000).tolist()
    return seeds_of([*EDGES, *range(100, 1092), *anywhere])


def torchs(seed: int, size: int, dtype: torch.dtype = torch.float32) -> list[float]:
    torch.manual_seed(seed)
    return [torch.randn((), dtype=dtype).item() for _ in range(size)]


@cache
def torchs_mixed() -> npt.NDArray[np.float32]:
    """Torch's values of ``mixed_seeds``, written out literally."""
    rows = []
    for seed in mixed_seeds().tolist():
        torch.manual_seed(seed)
        rows.append([torch.randn(()).item() for _ in range(31)])
    return np.array(rows, dtype=np.float32)


def same_bits(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> bool:
    left, right = np.ascontiguousarray(left), np.ascontiguousarray(right)
    assert left.dtype == right.dtype
    return left.shape == right.shape and left.tobytes() == right.tobytes()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that torch is asked for, from now on."""
    seeds: list[int] = []
    original = starts._asked

    def spy(generator: torch.Generator, seed: int, size: int) -> list[float]:
        seeds.append(seed)
        return original(generator, seed, size)

    monkeypatch.setattr(starts, "_asked", spy)
    return seeds


@pytest.fixture
def never_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches too take the vectorised way."""
    monkeypatch.setattr(starts, "_FEW", 0)


# --- torch's values --------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(1, 32))
def test_values_are_torchs_drawn_one_by_one(size: int) -> None:
    drawn = start_values(mixed_seeds(), size)
    assert drawn.dtype == np.float32
    assert same_bits(drawn, torchs_mixed()[:, :size])


def test_the_largest_size_is_torchs_too() -> None:
    seeds = seeds_of(range(64))
    expected = np.array([torchs(seed, MAX_SIZE) for seed in range(64)], dtype=np.float32)
    assert same_bits(start_values(seeds, MAX_SIZE), expected)


@pytest.mark.parametrize("size", [0, MAX_SIZE + 1])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"size is {size}; it must be from 1 to {MAX_SIZE}"):
        start_values(seeds_of([0]), size)


def test_only_the_low_32_bits_of_a_seed_count_as_in_torch() -> None:
    seeds = seeds_of([5, 5 + 2**32, -1, LARGEST] * 16)
    drawn = start_values(seeds, 4)
    assert same_bits(drawn[0], drawn[1])
    assert same_bits(drawn[2], drawn[3])
    assert same_bits(drawn[1], np.array(torchs(5 + 2**32, 4), dtype=np.float32))


# --- a seed does not know its batch ----------------------------------------------------------


@pytest.mark.usefixtures("never_few")
def test_a_seed_has_the_same_values_alone() -> None:
    for seed, expected in zip(mixed_seeds()[:100], torchs_mixed()[:100], strict=True):
        assert same_bits(start_values(seeds_of([seed]), 31)[0], expected)


@pytest.mark.usefixtures("never_few")
@pytest.mark.parametrize("size", [1, 4, 31])
def test_a_seed_has_the_same_values_in_a_batch_of_any_length(size: int) -> None:
    for length in range(1, 140):
        drawn = start_values(mixed_seeds()[:length], size)
        assert same_bits(drawn, torchs_mixed()[:length, :size])


@pytest.mark.usefixtures("never_few")
def test_a_seed_has_the_same_values_at_any_place() -> None:
    for shift in range(1, 140):
        drawn = start_values(np.roll(mixed_seeds()[:140], shift), 4)
        assert same_bits(drawn, np.roll(torchs_mixed()[:140, :4], shift, axis=0))


@pytest.mark.parametrize("chunk", [1, 31, 33, 100, 2999, 3000])
def test_values_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(starts, "_CHUNK", chunk)
    assert same_bits(start_values(mixed_seeds(), 4), torchs_mixed()[:, :4])


def test_a_batch_longer_than_a_chunk_is_its_parts() -> None:
    seeds = np.arange(starts._CHUNK + 100)
    drawn = start_values(seeds, 3)
    assert same_bits(drawn[-200:], start_values(seeds[-200:], 3))


@given(
    seeds=st.lists(st.integers(0, LARGEST), max_size=80),
    size=st.integers(1, 31),
    few=st.sampled_from([0, 32]),
)
def test_every_batch_is_torchs(seeds: list[int], size: int, few: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(starts, "_FEW", few)
        drawn = start_values(seeds_of(seeds), size)
    expected = np.array([torchs(seed, size) for seed in seeds], dtype=np.float32)
    assert same_bits(drawn, expected.reshape(len(seeds), size))


def test_a_smaller_size_is_a_prefix_of_a_larger_one() -> None:
    whole = start_values(mixed_seeds(), MAX_SIZE)
    for size in range(1, MAX_SIZE):
        assert same_bits(start_values(mixed_seeds()[:64], size), whole[:64, :size])


@pytest.mark.parametrize("size", [1, 4, 31])
def test_no_seeds_give_no_rows(size: int) -> None:
    drawn = start_values(seeds_of([]), size)
    assert drawn.shape == (0, size)
    assert drawn.dtype == np.float32


def test_a_seed_may_stand_twice() -> None:
    drawn = start_values(seeds_of([7, 8] * 50), 4)
    assert same_bits(drawn, np.tile(drawn[:2], (50, 1)))
    assert not same_bits(drawn[0], drawn[1])


def test_seeds_need_not_lie_side_by_side() -> None:
    table = np.stack([mixed_seeds(), mixed_seeds()], axis=1)
    assert same_bits(start_values(table[:, 1], 4), torchs_mixed()[:, :4])


def test_the_seeds_stay_as_they_are() -> None:
    seeds = mixed_seeds().copy()
    seeds.flags.writeable = False
    start_values(seeds, 4)
    assert same_bits(seeds, mixed_seeds())


def test_torchs_global_generator_is_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    start_values(mixed_seeds(), 4)
    start_values(mixed_seeds()[:3], 4)
    assert torch.equal(torch.get_rng_state(), before)


# --- near a midpoint of two float32 ----------------------------------------------------------


def near_midpoint(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    return starts._near_midpoint(values, np.empty_like(values), np.empty(len(values), np.bool_))


def midpoints() -> npt.NDArray[np.float64]:
    """Halfway between 2,000 float32 and their neighbours, of either sign and many sizes."""
    some = torchs_mixed()[:1000, 0]
    some = np.concatenate([some, some * np.float32(2.0**-30), [np.float32(1)]])
    neighbours = np.nextafter(some, np.float32(np.inf), dtype=np.float32)
    return np.asarray((some.astype(np.float64) + neighbours.astype(np.float64)) / 2)


def moved(values: npt.NDArray[np.float64], ulps: int) -> npt.NDArray[np.float64]:
    """``values`` away from 0 by so many units in the last place."""
    return (values.view(np.int64) + ulps).view(np.float64)


@pytest.mark.parametrize("ulps", [-1024, -1023, -8, -1, 0, 1, 8, 1023, 1024])
def test_what_lies_within_the_margin_of_a_midpoint_is_near(ulps: int) -> None:
    assert near_midpoint(moved(midpoints(), ulps)).all()


@pytest.mark.parametrize("ulps", [-(2**28), -(2**27), -1025, 1025, 2**27, 2**28 - 1])
def test_what_lies_beyond_the_margin_is_not_near(ulps: int) -> None:
    assert not near_midpoint(moved(midpoints(), ulps)).any()


def test_zeros_and_non_finite_numbers_are_not_near() -> None:
    assert not near_midpoint(np.array([0.0, -0.0, np.inf, -np.inf, 5e-324, -5e-324])).any()


def test_what_is_not_near_rounds_as_all_within_the_margin_do() -> None:
    values = moved(midpoints(), 1025)
    assert same_bits(values.astype(np.float32), moved(values, 1024).astype(np.float32))
    assert same_bits(values.astype(np.float32), moved(values, -1024).astype(np.float32))


def test_the_margin_is_a_hundred_times_what_the_doubles_are_wrong_by() -> None:
    seeds = mixed_seeds()[::3]
    buffers = starts._Buffers.of(len(seeds), 4)
    ours = np.stack([values.copy() for values in starts._normals(seeds, 4, buffers)], axis=1)
    exact = np.array([torchs(seed, 4, torch.float64) for seed in seeds.tolist()])
    assert np.abs(ours.view(np.int64) - exact.view(np.int64)).max() * 100 <= starts._MARGIN


def wrong_normals(
    monkeypatch: pytest.MonkeyPatch, rows: list[int], column: int
) -> npt.NDArray[np.float64]:
    """Let the doubles of ``rows`` in one column round to another float32 than torch's, narrowly.

    Each is put 10 units in the last place beyond the nearest midpoint. The answer is filled when
    the values are drawn.
    """
    original = starts._normals
    wrong = np.full(len(rows), np.nan)

    def normals(*args: Any) -> Iterator[npt.NDArray[np.float64]]:
        for k, values in enumerate(original(*args)):
            if k == column:
                right = values[rows]
                rounded = right.astype(np.float32)
                outward = np.copysign(np.float32(np.inf), rounded)
                neighbour = np.nextafter(rounded, outward, dtype=np.float32)
                halfway = (rounded.astype(np.float64) + neighbour.astype(np.float64)) / 2
                values[rows] = wrong[:] = moved(halfway, 10)
            yield values

    monkeypatch.setattr(starts, "_normals", normals)
    return wrong


@pytest.mark.parametrize("column", [0, 1, 3])
def test_torch_is_asked_where_a_double_is_near_a_midpoint(
    monkeypatch: pytest.MonkeyPatch, asked: list[int], column: int
) -> None:
    rows = [0, 3, 50, 98, 99]
    wrong = wrong_normals(monkeypatch, rows, column)
    drawn = start_values(mixed_seeds()[:100], 4)
    assert (wrong.astype(np.float32) != torchs_mixed()[rows, column]).all()
    assert same_bits(drawn, torchs_mixed()[:100, :4])
    assert asked == mixed_seeds()[rows].tolist()


def test_without_asking_a_double_near_a_midpoint_would_be_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [0, 3, 50, 98, 99]
    wrong = wrong_normals(monkeypatch, rows, 1)
    monkeypatch.setattr(starts, "_TWO_MARGINS", np.array(0, dtype=np.uint64))
    drawn = start_values(mixed_seeds()[:100], 4)
    assert same_bits(drawn[rows, 1], wrong.astype(np.float32))
    assert not same_bits(drawn, torchs_mixed()[:100, :4])


def test_torch_is_asked_for_the_seeds_of_a_later_chunk(
    monkeypatch: pytest.MonkeyPatch, asked: list[int]
) -> None:
    monkeypatch.setattr(starts, "_CHUNK", 50)
    wrong_normals(monkeypatch, [7], 2)
    assert same_bits(start_values(mixed_seeds()[:100], 4), torchs_mixed()[:100, :4])
    assert asked == mixed_seeds()[[7, 57]].tolist()


def test_torch_is_asked_for_a_few_seeds_of_many(asked: list[int]) -> None:
    seeds = np.arange(40_000)
    drawn = start_values(seeds, 31)
    assert 1 <= len(asked) <= 20
    for seed in asked:
        assert same_bits(drawn[seed], np.array(torchs(seed, 31), dtype=np.float32))


def test_torch_is_asked_for_every_seed_of_a_small_batch(asked: list[int]) -> None:
    start_values(seeds_of([3, 1, 2]), 4)
    assert asked == [3, 1, 2]


# --- extremes that no seed at hand reaches ---------------------------------------------------


def drawn_from(monkeypatch: pytest.MonkeyPatch, words: list[int]) -> npt.NDArray[np.float32]:
    """Two values, had the twister given these four words."""

    def words_of(seeds: Seeds, count: int, buffers: Any) -> Iterator[npt.NDArray[np.uint32]]:
        return (np.full(len(seeds), word, dtype=np.uint32) for word in words)

    monkeypatch.setattr(starts, "_words", words_of)
    return np.asarray(start_values(np.arange(64), 2)[0])


def test_a_zero_is_positive_as_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    # An angle of pi, whose cosine is -1, and a radius of 0: torch's own generator gives 0.
    drawn = drawn_from(monkeypatch, [1 << 20, 0, 0, 0])
    assert same_bits(drawn, np.zeros(2, dtype=np.float32))


def test_the_largest_radius_is_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = drawn_from(monkeypatch, [0, 0, LARGEST, LARGEST])
    assert drawn[0] == np.float32(np.sqrt(2 * 53 * np.log(2)))
    assert drawn[1] == 0


# --- threads and memory ----------------------------------------------------------------------


def test_torch_never_has_enough_to_do_for_a_second_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    original = torch.sin

    def sin(vector: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        lengths.append(len(vector))
        return original(vector, out=out)

    monkeypatch.setattr(torch, "sin", sin)
    start_values(np.arange(5000), 2)
    assert sum(lengths) == 5000
    assert max(lengths) <= 1024


@pytest.mark.parametrize("size", [4, 31])
def test_beyond_the_result_memory_is_a_few_megabytes(size: int) -> None:
    seeds = np.arange(3 * starts._CHUNK)
    tracemalloc.start()
    try:
        drawn = start_values(seeds, size)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - drawn.nbytes < 6 * 2**20
