"""Numbers, counts, sizes and times as people read them."""

import math

import pytest

from polyfit.show.text import (
    format_bytes,
    format_cell,
    format_change,
    format_count,
    format_duration,
    format_pairs,
    format_statuses,
)


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1,023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1,024.0 KiB"),
        (5 * 1024**3, "5.0 GiB"),
        (2000 * 1024**4, "2,000.0 TiB"),
    ],
)
def test_bytes_have_a_binary_unit(num_bytes: int, text: str) -> None:
    assert format_bytes(num_bytes) == text


@pytest.mark.parametrize(
    ("factor", "text"),
    [
        (None, "-"),
        (1.0, "+0%"),
        (1.052, "+5.2%"),
        (0.5, "-50%"),
        (9.99, "+899%"),
        (10.0, "10 times"),
        (12.345, "12.3 times"),
        (675_123.0, "675,000 times"),
        (6.75e12, "6.75e+12 times"),
        (0.1, "1/10"),
        (1 / 675_123, "1/675,000"),
        (0.0, "to 0"),
        (math.inf, "from 0"),
    ],
)
def test_a_change_beyond_tenfold_is_a_factor(factor: float | None, text: str) -> None:
    assert format_change(factor) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.01234, "0.0123 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2.0 h")],
)
def test_a_duration_has_a_unit_of_its_size(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.1 + 0.2, "0.3"),
        (1e30, "1e+30"),
        (7, "7"),
        ("gd", "gd"),
        ([1.5, None], "[1.5, -]"),
    ],
)
def test_a_cell_is_short(value: object, text: str) -> None:
    assert format_cell(value) == text


def test_one_has_no_plural() -> None:
    assert [format_count(n, "fit") for n in (0, 1, 2000)] == ["0 fits", "1 fit", "2,000 fits"]


def test_statuses_are_a_list_of_counts() -> None:
    assert format_statuses({"completed": 1800, "diverged": 2}) == "1,800 completed, 2 diverged"


def test_values_of_pairs_begin_in_one_column() -> None:
    assert format_pairs([("a", "1"), ("long", "2")], width=4) == "a    1\nlong 2"
