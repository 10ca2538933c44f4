"""``{date}`` in run ids and stores."""

import re
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from specs import defects

from polyfit.errors import UsageError
from polyfit.run.address import is_dated, run_address
from polyfit.spec.dates import MAX_NIGHTS, nights, read_date, read_since, today
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec

DAY = date(2026, 3, 1)


@given(st.dates())
def test_a_date_is_read_as_it_is_written(day: date) -> None:
    assert read_date(day.isoformat()) == read_date(day) == day


@pytest.mark.parametrize("text", ["", "2026-2-1", "20260201", "2026-02-30", "2026-W01-1", "today"])
def test_what_is_no_date_is_refused_with_one_that_is(text: str) -> None:
    with pytest.raises(UsageError, match=rf"date '{text}'; allowed: .* as YYYY-MM-DD, such as \d"):
        read_date(text)


@given(st.dates(min_value=date(30, 1, 1)), st.integers(0, 9999))
def test_the_first_night_is_a_date_or_so_many_days_before_the_last(day: date, days: int) -> None:
    assert read_since(f"{days}d", day) == day - timedelta(days=days)
    assert read_since(day.isoformat(), today()) == day


@pytest.mark.parametrize("text", ["", "7", "-7", "-7d", "d", "1.5d", "10000d", "2026-02-30"])
def test_another_first_night_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=rf"--since '{text}'; allowed: .*, such as 7d"):
        read_since(text, DAY)
    with pytest.raises(UsageError, match="--since '366d'"):
        read_since("366d", date(1, 12, 31))


@given(st.dates(max_value=date(9000, 1, 1)), st.integers(0, MAX_NIGHTS - 1))
def test_nights_follow_one_another_from_the_first_to_the_last(since: date, more: int) -> None:
    found = nights(since, since + timedelta(days=more))
    assert found == sorted(set(found))
    assert (found[0], found[-1], len(found)) == (since, since + timedelta(days=more), more + 1)


@pytest.mark.parametrize("days", [-1, MAX_NIGHTS])
def test_no_night_and_a_mistyped_year_are_refused(days: int) -> None:
    with pytest.raises(UsageError, match="--since 2026-03-01"):
        nights(DAY, DAY + timedelta(days=days))


def address(text: str, store: str | None = None, run_id: str | None = None) -> str:
    spec = Spec.parse(f"name: night\n{text}")
    found = run_address(spec, Plan.of(spec), store, run_id=run_id, date=DAY)
    assert is_dated(spec, store, run_id) == ("2026-03-01" in found.uri)
    return found.uri


def test_a_date_stands_in_the_run_id_and_in_the_store_of_a_spec() -> None:
    assert address("run_id: a-{date}\nstore: /runs") == "/runs/night/a-2026-03-01"
    assert address("run_id: fixed\nstore: s3://b/{date}/x") == "s3://b/2026-03-01/x/night/fixed"


def test_arguments_go_before_the_spec() -> None:
    text = "run_id: a-{date}\nstore: /runs/{date}"
    found = address(text, store="s3://b/x", run_id="b-{date}")
    assert found == "s3://b/x/night/b-2026-03-01"
    assert address(text, store="s3://b/x", run_id="b") == "s3://b/x/night/b"


def test_the_date_is_todays_where_none_is_given() -> None:
    spec = Spec.parse("name: night\nrun_id: '{date}'\nstore: /runs")
    before = today()
    found = run_address(spec, Plan.of(spec)).uri.removeprefix("/runs/night/")
    assert before <= date.fromisoformat(found) <= today()


def test_a_date_is_no_part_of_the_plan() -> None:
    plain = Plan.of(Spec.parse("name: night"))
    assert Plan.of(Spec.parse("name: night\nrun_id: a-{date}\nstore: /{date}")).hash == plain.hash


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("run_id: {date}", r"found \{'date': None\}; allowed: .* \"\{date\}\", in quotes"),
        ("run_id: 20260301", "a number in quotes is text"),
        ("run_id: a-{day}", r"found 'a-\{day\}'"),
        ("run_id: a/{date}", r"found 'a/\{date\}'"),
        ("store: s3://b/{day}", r"found 's3://b/\{day\}'; allowed: .*; write \{date\}"),
        ("store: s3://b{date}/x", r"found 's3://b\{date\}/x'; .*; write it after it"),
    ],
)
def test_other_placeholders_in_a_spec_are_refused(text: str, found: str) -> None:
    (line,) = defects(text)
    assert re.search(found, line), line
