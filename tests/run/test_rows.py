"""Results as rows: columns, types, lists, nulls."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from rows_of import ints, made, plan_of, rows_of

from polyfit.run.rows import Ragged, Words, to_table
from polyfit.run.schema import SCALARS, schema
from polyfit.spec.fit import CANONICAL_ORDER


def test_empty_lists_hold_their_lengths_in_nan() -> None:
    ragged = Ragged.empty(ints(2, 0, 1), np.float32)
    assert ragged.values.dtype == np.float32
    assert np.isnan(ragged.values).all()
    assert ragged.offsets.tolist() == [0, 2, 2, 3]


def test_put_fills_each_list_to_its_own_length() -> None:
    ragged = Ragged.empty(ints(1, 3, 0, 2), np.float64)
    ragged.put(ints(3, 0), np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    np.testing.assert_array_equal(ragged.values, [4.0, np.nan, np.nan, np.nan, 1.0, 2.0])


def test_put_of_short_values_leaves_the_rest_as_it_was() -> None:
    ragged = Ragged.empty(ints(3, 1), np.float64)
    ragged.put(ints(0), np.array([[1.0, 2.0]]))
    np.testing.assert_array_equal(ragged.values, [1.0, 2.0, np.nan, np.nan])


@pytest.mark.parametrize("order", [*permutations(range(4)), (0, 3), (2, 0, 1), (3,)], ids=str)
def test_put_takes_lists_of_one_length_in_any_order(order: tuple[int, ...]) -> None:
    ragged = Ragged.empty(ints(2, 2, 2, 2), np.float64)
    ragged.put(ints(*order), np.array([[row, row + 0.5] for row in order]))
    expected = np.full((4, 2), np.nan)
    for row in order:
        expected[row] = row, row + 0.5
    np.testing.assert_array_equal(ragged.values.reshape(4, 2), expected)


def test_put_of_nothing_changes_nothing() -> None:
    ragged = Ragged.empty(ints(2), np.float64)
    ragged.put(ints(0), np.empty((1, 0)))
    ragged.put(ints(), np.empty((0, 2)))
    assert np.isnan(ragged.values).all()


def test_cut_keeps_the_first_values_of_each_list() -> None:
    ragged = Ragged(np.arange(6.0), ints(3, 1, 2))
    cut = ragged.cut(ints(1, 0, 2))
    assert (cut.values.tolist(), cut.lengths.tolist()) == ([0.0, 4.0, 5.0], [1, 0, 2])


WORD = "dictionary<values=string, indices=int32, ordered=0>"


def test_a_rows_columns_and_types() -> None:
    found = [(f.name, str(f.type), f.nullable) for f in schema(plan_of())]
    assert found == [
        ("fit", "int64", False),
        ("degree", "int32", False),
        ("points", "int32", False),
        ("basis", WORD, False),
        ("range_low", "double", False),
        ("range_high", "double", False),
        ("objective", WORD, False),
        ("dtype", WORD, False),
        ("target", WORD, False),
        ("noise", "double", False),
        ("noise_seed", "uint64", False),
        ("steps", "int64", False),
        ("stop", WORD, True),
        ("optimizer", WORD, False),
        ("lr", "double", True),
        ("lr_limit", "double", True),
        ("lr_share", "double", True),
        ("seed", "int64", False),
        ("status", WORD, False),
        ("reason", WORD, True),
        ("steps_taken", "int64", False),
        ("steps_to_1pct", "int64", True),
        ("loss", "double", True),
        ("optimum_loss", "double", True),
        ("excess_loss", "double", True),
        ("gradient_norm", "double", True),
        ("rmse", "double", True),
        ("max_error", "double", True),
        ("coefficients", "list<item: float>", False),
        ("power_coefficients", "list<item: float>", True),
        ("history_steps", "list<item: int32>", False),
        ("loss_history", "list<item: float>", False),
    ]


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ("[float32]", "float"),
        ("[float64]", "double"),
        ("[float32, float64]", "double"),
    ],
)
def test_lists_are_float32_where_every_fit_of_the_plan_is(dtypes: str, expected: str) -> None:
    plan = plan_of(f", dtype: {dtypes}")
    for name in ("coefficients", "power_coefficients", "loss_history"):
        assert str(schema(plan).field(name).type) == f"list<item: {expected}>"


def test_what_is_not_recorded_has_no_column() -> None:
    names = schema(plan_of(record="none")).names
    assert not [name for name in names if "history" in name]


def test_what_is_recorded_has_a_column_each_in_the_records_order() -> None:
    plan = plan_of(record="{every: 10, of: [loss, coefficients, gradient_norm]}")
    assert set(schema(plan).names[-3:]) == {
        "loss_history",
        "coefficients_history",
        "gradient_norm_history",
    }
    assert str(schema(plan).field("coefficients_history").type) == "list<item: list<item: float>>"


def test_a_table_has_the_schema_and_a_row_per_fit() -> None:
    plan = plan_of()
    rows = made(plan)
    assert rows.schema.equals(schema(plan))
    assert rows["fit"].to_pylist() == list(range(12))


def test_a_row_has_the_parameters_of_its_fit() -> None:
    plan = plan_of(", optimizer: [gd, {momentum: {beta: 0.5}}], stop: [null]")
    for number, row in enumerate(made(plan).to_pylist()):
        fit = plan.sweep.fit(number)
        for name in ("degree", "points", "basis", "objective", "dtype", "target", "seed", "steps"):
            assert row[name] == getattr(fit, name)
        assert row["optimizer"] == str(fit.optimizer)
        assert (row["range_low"], row["range_high"]) == fit.range


def test_the_name_of_momentum_has_its_parameter() -> None:
    plan = plan_of(", optimizer: [gd, {momentum: {beta: 0.5}}]")
    assert set(made(plan)["optimizer"].to_pylist()) == {"gd", "momentum(beta=0.5)"}


def test_a_fit_without_a_stop_has_null_there() -> None:
    plan = plan_of(", stop: [null, {gradient: 0.001}]")
    assert set(made(plan)["stop"].to_pylist()) == {None, "gradient=0.001"}


def test_a_noise_seed_beyond_int64_is_kept() -> None:
    plan = plan_of(f", noise_seed: [{2**64 - 1}]")
    assert set(made(plan)["noise_seed"].to_pylist()) == {2**64 - 1}


def test_a_later_shard_numbers_its_fits_on() -> None:
    plan = replace(plan_of(), shard_fits=5)
    shard = plan.shard(2)
    assert (shard.start, shard.stop) == (10, 12)
    whole = rows_of(plan)
    fits = np.arange(10, 12)
    rows = replace(
        whole,
        parameters={name: plan.sweep.column(name, fits) for name in CANONICAL_ORDER},
        **{
            name: getattr(whole, name)[10:]
            for name in ("lr", "lr_limit", "status", "reason", "steps_taken", "steps_to_1pct")
        },
        power_known=whole.power_known[10:],
        scalars={name: values[10:] for name, values in whole.scalars.items()},
        coefficients=Ragged(np.arange(8, dtype=np.float32), ints(4, 4)),
        power_coefficients=Ragged(np.arange(8, dtype=np.float32), ints(4, 4)),
        histories={"loss": Ragged(np.arange(2, dtype=np.float32), ints(1, 1))},
    )
    found = to_table(plan, shard, rows)
    assert (found["fit"].to_pylist(), found["seed"].to_pylist()) == ([10, 11], [4, 5])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_scalar_that_is_not_finite_becomes_null(value: float) -> None:
    plan = plan_of()
    rows = rows_of(plan)
    for values in (rows.lr, *rows.scalars.values()):
        values[3] = value
    found = made(plan, lr=rows.lr, scalars=rows.scalars)
    for name in ("lr", *SCALARS):
        assert [k for k, v in enumerate(found[name].to_pylist()) if v is None] == [3]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_coefficient_that_is_not_finite_becomes_null_in_its_place(value: float) -> None:
    plan = plan_of()
    coefficients = rows_of(plan).coefficients
    coefficients.values[[1, 2]] = value  # the last of fit 0 and the first of fit 1
    found = made(plan, coefficients=coefficients)["coefficients"].to_pylist()
    assert [[v is None for v in numbers] for numbers in found[:3]] == [
        [False, True],
        [True, False],
        [False, False],
    ]


def test_unknown_power_coefficients_are_null_and_their_neighbours_stay() -> None:
    plan = plan_of()
    known = np.ones(12, dtype=np.bool_)
    known[[0, 7]] = False
    found = made(plan, power_known=known)["power_coefficients"].to_pylist()
    whole = made(plan)["power_coefficients"].to_pylist()
    assert found == [None if k in (0, 7) else numbers for k, numbers in enumerate(whole)]


def test_a_record_that_ended_early_is_a_shorter_list() -> None:
    plan = plan_of()
    lengths = ints(*range(4), *range(4), *range(4))
    history = Ragged(np.arange(lengths.sum()).astype(np.float32), lengths)
    found = made(plan, histories={"loss": history})["loss_history"].to_pylist()
    assert found[:4] == [[], [0.0], [1.0, 2.0], [3.0, 4.0, 5.0]]


def test_the_share_of_the_limit_is_null_where_rate_or_limit_are() -> None:
    plan = plan_of()
    rows = rows_of(plan)
    rows.lr[0], rows.lr_limit[1], rows.lr_limit[2] = np.inf, np.nan, np.inf
    found = made(plan, lr=rows.lr, lr_limit=rows.lr_limit).to_pylist()
    assert [row["lr_share"] for row in found[:3]] == [None] * 3
    assert [row["lr_limit"] for row in found[:3]] == [0.75, None, None]
    assert found[3]["lr_share"] == 3.25 / 3.75


def test_reasons_and_steps_to_the_optimum_may_be_unknown() -> None:
    found = made(plan_of()).to_pylist()
    assert [row["reason"] for row in found[:3]] == [None, "rate above the limit", None]
    assert [row["steps_to_1pct"] for row in found[:6]] == [None, 0, 1, 2, 3, None]


def test_words_have_the_order_of_the_alphabet_whoever_comes_first() -> None:
    one, other = Words(), Words()
    for words, texts in ((one, ["b", "a"]), (other, ["a", "b"])):
        codes = np.array([words.code(text) for text in texts])
        column = words.column(np.append(codes, 0))
        assert column.items == [None, "a", "b"]
        assert [column.items[code] for code in column.codes] == [*texts, None]


def test_each_history_has_the_numbers_of_its_updates() -> None:
    """Of fits with unequal numbers of steps that end at unequal updates."""
    plan = plan_of(", steps: [12, 30]", "auto")
    lengths = ints(*[0, 4, 6, 5, 1, 7] * 2)
    history = Ragged(np.arange(lengths.sum()).astype(np.float32), lengths)
    found = made(plan, histories={"loss": history})["history_steps"].to_pylist()
    short, long = [0, 1, 2, 5, 10, 11], [0, 1, 2, 5, 10, 20, 29]
    assert found[:6] == [[], short[:4], short, long[:5], long[:1], long]


def test_recorded_coefficients_are_a_list_per_update_of_the_fits_own_size() -> None:
    plan = plan_of(record="{every: 10, of: [coefficients]}")
    counts = ints(*[3, 0, 1] * 4)
    size = np.repeat([2, 4], 6)
    history = Ragged(np.arange((counts * size).sum()).astype(np.float32), counts * size)
    found = made(plan, histories={"coefficients": history})["coefficients_history"].to_pylist()
    assert found[:3] == [[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], [], [[6.0, 7.0]]]
    assert [[len(one) for one in lists] for lists in found[6:9]] == [[4, 4, 4], [], [4]]
