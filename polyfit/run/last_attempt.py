"""Whether a driver is running a run, and how its last attempt ended."""

from polyfit.run.holder import Holder
from polyfit.run.lease import last_driver
from polyfit.run.ledger import Ledger

__all__ = ["describe_driver", "describe_last_attempt", "last_log"]


def describe_last_attempt(ledger: Ledger) -> str:
    """Whether a driver is at work on the run, in words.

    The lease decides: a driver that was killed could not note its end.
    """
    return describe_driver(ledger, last_driver(ledger.store))


def describe_driver(ledger: Ledger, found: tuple[Holder, bool] | None) -> str:
    """The same, of the driver that ``last_driver`` has found."""
    if found is None:
        return "no driver has started it"
    holder, at_work = found
    who = f"attempt {holder.attempt} (process {holder.pid} on {holder.host})"
    if at_work:
        return f"{who} is at work on it"
    code = ledger.attempt(holder.attempt).get("exit_code")
    end = "was lost" if code is None else f"ended with exit code {code}"
    return f"no driver is at work on it: {who} {end}"


def last_log(ledger: Ledger) -> str:
    """The log of the last driver, which is stored every ten seconds and at its end; empty where
    there is none."""
    found = last_driver(ledger.store)
    return "" if found is None else ledger.log(found[0].attempt)
