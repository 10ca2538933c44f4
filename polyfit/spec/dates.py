"""``{date}`` in run ids and stores: the date that a run is of, such as a night's."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Final

from polyfit.errors import UsageError
from polyfit.store.uri import DATE

__all__ = ["fill_date", "nights", "read_date", "read_since", "today", "undated"]

MAX_NIGHTS: Final = 366
"""Nights that one command makes up for: more are a mistyped year."""

_FORM: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_DAYS: Final = re.compile(r"(\d{1,4})d", re.ASCII)


def today() -> date:
    """The date in UTC."""
    return datetime.now(UTC).date()


def read_date(given: str | date | None) -> date:
    """The date that ``given`` is, written as YYYY-MM-DD; today in UTC if None.

    Raises:
        UsageError: it is none.
    """
    if given is None:
        return today()
    if isinstance(given, date) and not isinstance(given, datetime):
        return given
    try:
        if isinstance(given, str) and _FORM.fullmatch(given):
            return date.fromisoformat(given)
    except ValueError:
        pass
    raise UsageError(
        f"date {str(given)!r}; allowed: a day of the calendar as YYYY-MM-DD, such as {today()}"
    )


def read_since(given: str, until: date) -> date:
    """The first of several nights: a date, or as ``7d`` so many days before ``until``, the last.

    Raises:
        UsageError: it is neither.
    """
    try:
        if days := _DAYS.fullmatch(given):
            return until - timedelta(days=int(days[1]))
        return read_date(given)
    except (UsageError, OverflowError):
        raise UsageError(
            f"--since {given!r}; allowed: a day of the calendar as YYYY-MM-DD, such as {today()}, "
            "or a number of days before the last night, such as 7d"
        ) from None


def fill_date(text: str, day: date) -> str:
    """``text`` with ``day`` in place of ``{date}``."""
    return text.replace(DATE, day.isoformat())


def undated(text: str) -> str:
    """``text`` with some date in place of ``{date}``, to see whether it has the right form."""
    return fill_date(text, date.min)


def nights(since: date, until: date) -> list[date]:
    """The days from ``since`` to ``until``, both included, the oldest first.

    Raises:
        UsageError: there is none, or more than ``MAX_NIGHTS``.
    """
    count = (until - since).days + 1
    if count < 1:
        raise UsageError(f"--since {since} is after {until}, the last night to be run (--date)")
    if count > MAX_NIGHTS:
        raise UsageError(
            f"--since {since}: {count:,} nights until {until}; allowed: at most {MAX_NIGHTS}"
        )
    return [since + timedelta(days=day) for day in range(count)]
