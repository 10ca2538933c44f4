"""Initial values: torch's own, bit for bit, whoever else is in the batch."""

import tracemalloc
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyfit.engine import cpu, initial, twister_kernel
from polyfit.engine.emit import Emitter
from polyfit.engine.initial import initial_values
from polyfit.engine.kernel import Block, Kernel, Memory, cpu_text
from polyfit.engine.twister_kernel import MAX_SIZE, TwisterKernel

Seeds = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
LARGEST = 2**32 - 1
EDGES = [0, 1, 2, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 2, LARGEST]
LANES = 16


def drawn_by_kernel(seeds: Seeds, size: int) -> npt.NDArray[np.float32]:
    return initial_values(seeds, size, compiled=True)


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
    rows = [torchs(seed, 31) for seed in mixed_seeds().tolist()]
    return np.array(rows, dtype=np.float32)


def same_bits(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> bool:
    left, right = np.ascontiguousarray(left), np.ascontiguousarray(right)
    assert left.dtype == right.dtype
    return left.shape == right.shape and left.tobytes() == right.tobytes()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that torch is asked for, from now on."""
    seeds: list[int] = []
    original = initial.drawn_by_torch

    def spy(some: Seeds, size: int) -> npt.NDArray[np.float32]:
        seeds.extend(some.tolist())
        return original(some, size)

    monkeypatch.setattr(initial, "drawn_by_torch", spy)
    return seeds


@pytest.fixture
def never_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches too are computed by the kernel."""
    monkeypatch.setattr(initial, "_MIN_COMPILED", 1)


# --- torch's values --------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(1, 32))
def test_values_are_torchs_drawn_one_by_one(size: int) -> None:
    drawn = drawn_by_kernel(mixed_seeds(), size)
    assert drawn.dtype == np.float32
    assert same_bits(drawn, torchs_mixed()[:, :size])


def test_without_a_kernel_values_are_torchs_too() -> None:
    drawn = initial_values(mixed_seeds()[:300], 31, compiled=False)
    assert same_bits(drawn, torchs_mixed()[:300])


def test_the_largest_size_is_torchs_too() -> None:
    seeds = [*EDGES, *range(3, 59)]
    expected = np.array([torchs(seed, MAX_SIZE) for seed in seeds], dtype=np.float32)
    assert same_bits(drawn_by_kernel(seeds_of(seeds), MAX_SIZE), expected)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("size", [0, MAX_SIZE + 1])
def test_other_sizes_are_refused(size: int, compiled: bool) -> None:
    with pytest.raises(ValueError, match=f"size is {size}; it must be from 1 to {MAX_SIZE}"):
        initial_values(seeds_of([0]), size, compiled)


@pytest.mark.parametrize("compiled", [False, True])
def test_only_the_low_32_bits_of_a_seed_count_as_in_torch(compiled: bool) -> None:
    seeds = seeds_of([5, 5 + 2**32, -1, LARGEST] * 16)
    drawn = initial_values(seeds, 4, compiled)
    assert same_bits(drawn[0], drawn[1])
    assert same_bits(drawn[2], drawn[3])
    assert same_bits(drawn[1], np.array(torchs(5 + 2**32, 4), dtype=np.float32))


# --- a seed does not know its batch ----------------------------------------------------------


@pytest.mark.usefixtures("never_few")
def test_a_seed_has_the_same_values_alone() -> None:
    for seed, expected in zip(mixed_seeds()[:100], torchs_mixed()[:100], strict=True):
        assert same_bits(drawn_by_kernel(seeds_of([seed]), 31)[0], expected)


@pytest.mark.usefixtures("never_few")
@pytest.mark.parametrize("size", [1, 4, 31])
def test_a_seed_has_the_same_values_in_a_batch_of_any_length(size: int) -> None:
    for length in range(1, 140):
        drawn = drawn_by_kernel(mixed_seeds()[:length], size)
        assert same_bits(drawn, torchs_mixed()[:length, :size])


@pytest.mark.usefixtures("never_few")
def test_a_seed_has_the_same_values_at_any_place() -> None:
    for shift in range(1, 140):
        drawn = drawn_by_kernel(np.roll(mixed_seeds()[:140], shift), 4)
        assert same_bits(drawn, np.roll(torchs_mixed()[:140, :4], shift, axis=0))


@settings(max_examples=30)
@given(
    seeds=st.lists(st.integers(0, LARGEST), max_size=80),
    size=st.integers(1, 31),
    few=st.sampled_from([1, 32]),
)
def test_every_batch_is_torchs(seeds: list[int], size: int, few: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(initial, "_MIN_COMPILED", few)
        drawn = drawn_by_kernel(seeds_of(seeds), size)
    expected = np.array([torchs(seed, size) for seed in seeds], dtype=np.float32)
    assert same_bits(drawn, expected.reshape(len(seeds), size))


def test_a_smaller_size_is_a_prefix_of_a_larger_one() -> None:
    whole = drawn_by_kernel(mixed_seeds(), MAX_SIZE)
    for size in range(1, MAX_SIZE):
        assert same_bits(drawn_by_kernel(mixed_seeds()[:64], size), whole[:64, :size])


@pytest.mark.usefixtures("never_few")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("size", [1, 4, 31])
def test_no_seeds_give_no_rows(size: int, compiled: bool) -> None:
    drawn = initial_values(seeds_of([]), size, compiled)
    assert drawn.shape == (0, size)
    assert drawn.dtype == np.float32


def test_a_seed_may_stand_twice() -> None:
    drawn = drawn_by_kernel(seeds_of([7, 8] * 50), 4)
    assert same_bits(drawn, np.tile(drawn[:2], (50, 1)))
    assert not same_bits(drawn[0], drawn[1])


def test_seeds_need_not_lie_side_by_side() -> None:
    table = np.stack([mixed_seeds(), mixed_seeds()], axis=1)
    assert same_bits(drawn_by_kernel(table[:, 1], 4), torchs_mixed()[:, :4])


def test_the_seeds_stay_as_they_are() -> None:
    seeds = mixed_seeds().copy()
    seeds.flags.writeable = False
    drawn_by_kernel(seeds, 4)
    assert same_bits(seeds, mixed_seeds())


def test_torchs_global_generator_is_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    drawn_by_kernel(mixed_seeds(), 4)
    drawn_by_kernel(mixed_seeds()[:3], 4)
    assert torch.equal(torch.get_rng_state(), before)


def twisted(lanes: int, machine: cpu.Machine) -> tuple[bytes, bytes]:
    """The values of the first 128 mixed seeds, and which are near a midpoint."""
    seeds = mixed_seeds()[:128].astype(np.uint32)
    values, near = np.empty((7, 128), dtype=np.float32), np.empty(128, dtype=np.int32)
    code = cpu.machine_code(cpu_text(TwisterKernel(), lanes), machine)
    call = cpu.Function(TwisterKernel(), code).bind(
        {"seeds": seeds, "values": values, "near": near, "batch": 128, "size": 7}
    )
    call(begin=0, end=128)
    return values.tobytes(), (near != 0).tobytes()


@pytest.mark.parametrize("lanes", [1, 4, 32, 64])
def test_lanes_change_no_bit(lanes: int) -> None:
    values, near = twisted(lanes, cpu.HOST)
    assert values == np.ascontiguousarray(torchs_mixed()[:128, :7].T).tobytes()
    assert (values, near) == twisted(LANES, cpu.HOST)


# --- near a midpoint of two float32 ----------------------------------------------------------


@dataclass(frozen=True)
class Near(Kernel):
    """Which of the doubles ``values`` (B,) are near a midpoint; ``near`` (B,) int32."""

    arrays: ClassVar = ("values", "near")
    integers: ClassVar = ()

    def before(self, e: Emitter, a: dict[str, str]) -> object:
        return Memory(e, 1, "i32")

    def block(self, e: Emitter, a: dict[str, str], shared: Any, b: str) -> None:
        block = Block(e, a, b)
        near = twister_kernel._TwisterBlock(block, shared)._near_midpoint(block.load("values"))
        block.store(e.new(f"zext {e.mask} {near} to {e.of_lanes('i32')}"), "near", 0, "i32")


@dataclass(frozen=True)
class Normals(Kernel):
    """The doubles of four words each: ``words_in`` (4, B) uint32, ``values`` (2, B)."""

    arrays: ClassVar = ("words_in", "values")
    integers: ClassVar = ()

    def before(self, e: Emitter, a: dict[str, str]) -> object:
        return Memory(e, 1, "i32")

    def block(self, e: Emitter, a: dict[str, str], shared: Any, b: str) -> None:
        block = Block(e, a, b)
        words = [e.load_lanes(a["words_in"], block.row(k), "i32") for k in range(4)]
        for k, value in enumerate(twister_kernel._TwisterBlock(block, shared)._normals(words)):
            block.store(value, "values", k)


@cache
def function_of(kernel: Kernel) -> cpu.Function:
    return cpu.Function(kernel, cpu.machine_code(cpu_text(kernel, LANES)))


def near_midpoint(values: Doubles) -> npt.NDArray[np.bool_]:
    batch = -(-len(values) // LANES) * LANES
    padded, near = np.zeros(batch), np.empty(batch, dtype=np.int32)
    padded[: len(values)] = values
    call = function_of(Near()).bind({"values": padded, "near": near, "batch": batch})
    call(begin=0, end=batch)
    return np.asarray(near[: len(values)] != 0)


def midpoints() -> Doubles:
    """Halfway between 2,000 float32 and their neighbours, of either sign and many sizes."""
    some = torchs_mixed()[:1000, 0]
    some = np.concatenate([some, some * np.float32(2.0**-30), [np.float32(1)]])
    neighbours = np.nextafter(some, np.float32(np.inf), dtype=np.float32)
    return np.asarray((some.astype(np.float64) + neighbours.astype(np.float64)) / 2)


def moved(values: Doubles, ulps: int) -> Doubles:
    """``values`` away from 0 by so many units in the last place."""
    return (values.view(np.int64) + ulps).view(np.float64)


@pytest.mark.parametrize("ulps", [-1024, -1023, -8, -1, 0, 1, 8, 1023, 1024])
def test_what_lies_within_the_margin_of_a_midpoint_is_near(ulps: int) -> None:
    assert near_midpoint(moved(midpoints(), ulps)).all()


@pytest.mark.parametrize("ulps", [-(2**28), -(2**27), -1025, 1025, 2**27, 2**28 - 1])
def test_what_lies_beyond_the_margin_is_not_near(ulps: int) -> None:
    assert not near_midpoint(moved(midpoints(), ulps)).any()


def test_zeros_are_not_near() -> None:
    assert not near_midpoint(np.array([0.0, -0.0, 5e-324, -5e-324])).any()


def test_what_is_not_near_rounds_as_all_within_the_margin_do() -> None:
    values = moved(midpoints(), 1025)
    assert same_bits(values.astype(np.float32), moved(values, 1024).astype(np.float32))
    assert same_bits(values.astype(np.float32), moved(values, -1024).astype(np.float32))


def normals(words: npt.NDArray[np.uint32]) -> Doubles:
    """The kernel's doubles of words, shape (4, 16 k): shape (2, 16 k)."""
    words, batch = np.ascontiguousarray(words), words.shape[1]
    values = np.empty((2, batch))
    call = function_of(Normals()).bind({"words_in": words, "values": values, "batch": batch})
    call(begin=0, end=batch)
    return values


def test_the_margin_is_a_hundred_times_what_the_doubles_are_wrong_by() -> None:
    seeds = mixed_seeds()[:1024:2].tolist()
    words = np.empty((4, len(seeds)), dtype=np.uint32)
    exact = np.empty((2, len(seeds)))
    for column, seed in enumerate(seeds):
        # numpy seeds its legacy twister as torch does, whose double takes the upper word first.
        words[:, column] = np.random.RandomState(seed).randint(0, 2**32, 4, dtype=np.uint32)
        exact[:, column] = torchs(seed, 2, torch.float64)
    ours = normals(words)
    assert np.abs(ours.view(np.int64) - exact.view(np.int64)).max() * 100 <= twister_kernel._MARGIN


def test_what_torch_is_asked_for_takes_the_place_of_doubtful_values_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seeds, size = np.arange(40_000), 31
    original = initial.drawn_by_torch
    doubtful: list[int] = []

    def spy(some: Seeds, size: int) -> npt.NDArray[np.float32]:
        doubtful.extend(some.tolist())
        return np.full((len(some), size), np.nan, dtype=np.float32)

    right = drawn_by_kernel(seeds, size)
    monkeypatch.setattr(initial, "drawn_by_torch", spy)
    drawn = drawn_by_kernel(seeds, size)
    assert 1 <= len(doubtful) <= 20
    assert np.flatnonzero(np.isnan(drawn).any(axis=1)).tolist() == doubtful
    assert np.isnan(drawn[doubtful]).all()
    assert same_bits(right[doubtful], original(seeds_of(doubtful), size))


def test_torch_is_asked_for_every_seed_of_a_small_batch(asked: list[int]) -> None:
    drawn_by_kernel(seeds_of([3, 1, 2]), 4)
    assert asked == [3, 1, 2]


# --- extremes that no seed at hand reaches ---------------------------------------------------


def drawn_from(words: list[int]) -> Doubles:
    """Two values, had the twister given these four words."""
    return normals(np.repeat(np.array([words], dtype=np.uint32).T, LANES, axis=1))[:, 0]


def test_a_zero_is_positive_as_in_torch() -> None:
    # An angle of pi, whose cosine is -1, and a radius of 0: torch's own generator gives 0.
    assert same_bits(drawn_from([1 << 20, 0, 0, 0]), np.zeros(2))


def test_the_largest_radius_is_finite() -> None:
    drawn = drawn_from([0, 0, LARGEST, LARGEST])
    assert drawn[0] == pytest.approx(np.sqrt(2 * 53 * np.log(2)), rel=1e-15)
    assert drawn[1] == 0


# --- memory ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 31])
def test_beyond_the_result_memory_is_a_few_bytes_a_seed(size: int) -> None:
    seeds = np.arange(100_000)
    drawn_by_kernel(seeds[:100], size)  # what is imported and compiled once
    tracemalloc.start()
    try:
        drawn = drawn_by_kernel(seeds, size)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - drawn.nbytes < 32 * len(seeds)
