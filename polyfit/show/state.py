"""How far a run is, for ``polyfit status``."""

from dataclasses import asdict
from typing import Any

from polyfit.run.run_receipt import RunReceipt
from polyfit.run.state import RunState, State
from polyfit.show.receipt import receipt_pairs
from polyfit.show.text import (
    format_bytes,
    format_count,
    format_duration,
    format_pairs,
    three_digits,
)
from polyfit.store.address import StoreAddress

__all__ = ["progress_line", "state_facts", "state_text"]


def state_facts(
    address: StoreAddress, plan_hash: str, state: RunState, receipt: RunReceipt | None
) -> dict[str, Any]:
    """The state as JSON; ``exit_code`` is that of the command."""
    identity = {"run": address.uri, "endpoint_url": address.endpoint_url, "plan_hash": plan_hash}
    taken = None if receipt is None else asdict(receipt)
    code = int(state.state.exit_code)
    return {**identity, **asdict(state), "receipt": taken, "exit_code": code}


def state_text(address: StoreAddress, state: RunState, receipt: RunReceipt | None) -> str:
    """The state in words, a line for each thing that is known."""
    stage = f": {state.stage}" if state.stage and state.state is State.RUNNING else ""
    pairs = [
        ("run", str(address)),
        ("state", f"{state.state}{stage}"),
        ("shards", _shards(state) + _at_least(state)),
        ("fits", _of(state.fits_done, state.fits, "fit")),
        ("rate", _rate(state)),
        ("bytes", None if state.bytes is None else format_bytes(state.bytes)),
        ("last event", state.last_event_at),
        ("driver", state.driver),
        *(receipt_pairs(receipt) if receipt is not None else ()),
    ]
    return format_pairs([(name, text) for name, text in pairs if text], width=10)


def progress_line(state: RunState) -> str:
    """The same in one line, for a run that is watched."""
    parts = [str(state.stage or state.state), _shards(state), _rate(state)]
    return ", ".join(part for part in parts if part)


def _shards(state: RunState) -> str:
    text = f"{_of(state.shards_done, state.shards, 'shard')} stored"
    return text + (f", {state.shards_failed:,} failed" if state.shards_failed else "")


def _at_least(state: RunState) -> str:
    """Of a driver that has died: what it wrote last need not be all that it did."""
    if state.state is not State.STALE or state.updated_at is None:
        return ""
    return f" when its driver last wrote, {state.updated_at}; there may be more"


def _of(done: int | None, whole: int, noun: str) -> str:
    return f"{'?' if done is None else f'{done:,}'} of {format_count(whole, noun)}"


def _rate(state: RunState) -> str | None:
    if not state.fits_per_s or state.state is not State.RUNNING:
        return None
    left = state.seconds_left
    about = "" if left is None else f", about {format_duration(float(f'{left:.2g}'))} left"
    return f"{three_digits(state.fits_per_s)} fits a second{about}"
