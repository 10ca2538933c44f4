"""``polyfit status``."""

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

import click

from polyfit.cli import options
from polyfit.cli.found import find
from polyfit.cli.output import write_line
from polyfit.cli.watching import watching
from polyfit.errors import Exit

if TYPE_CHECKING:
    from polyfit.run.run_receipt import RunReceipt
    from polyfit.run.state import RunState
    from polyfit.spec.plan import Plan
    from polyfit.store.address import StoreAddress
    from polyfit.store.base import Store

__all__ = ["show_status"]

PAUSE_S: Final = 2.0


@click.command("status", short_help="Show how far a run is, and who drives it.")
@click.argument("run", metavar="RUN")
@options.found
@click.option("--watch", is_flag=True, help="Show each change until no driver is at work.")
@click.option("--log", "with_log", is_flag=True, help="Show the log of the last driver as well.")
@click.option("--spec", "as_spec", is_flag=True, help="Write the spec it was begun with instead.")
@options.as_json
def show_status(
    run: str,
    watch: bool,
    with_log: bool,
    as_spec: bool,
    as_json: bool,
    found_by: dict[str, Any],
) -> int:
    """Show how far a run is and who drives it, from the store alone.

    RUN is a folder, a name, an id or a spec; see the page of jobs. The exit code is 0 if the run
    is complete, 3 if shards have failed, 4 if a driver is at work on it, and 7 if it is not
    complete and no driver is at work. With --json --watch, each change is one line.

    --spec writes the run's spec.yaml to stdout, to go on with it where the spec has changed since.
    """
    from polyfit.run.last_attempt import last_log
    from polyfit.run.ledger import Ledger, plan_at
    from polyfit.run.state import read_state
    from polyfit.run.stored_spec import stored_spec

    address = find(run, found_by)
    opened = address.open()
    if as_spec:
        if watch or with_log or as_json:
            raise click.UsageError("--spec excludes --watch, --log and --json")
        click.echo(stored_spec(opened), nl=False)
        return Exit.COMPLETE
    plan = plan_at(opened)
    with watching("the run itself goes on") if watch else nullcontext():
        state = _watch(address, opened, plan, as_json) if watch else read_state(opened, plan)
    log = last_log(Ledger(opened, plan)) if with_log else None
    _show(address, plan, state, as_json, _receipt(opened), log)
    return state.state.exit_code


def _receipt(opened: "Store") -> "RunReceipt | None":
    """What the run has taken; None, and a warning, where that cannot be read."""
    from polyfit.errors import DamagedRun
    from polyfit.run.run_receipt import stored_receipt

    try:
        return stored_receipt(opened)
    except DamagedRun as error:
        write_line(f"warning: {error}")
        return None


def _watch(address: "StoreAddress", opened: "Store", plan: "Plan", as_json: bool) -> "RunState":
    """Show each change of a run that is driven; the state when it no longer is."""
    from polyfit.run.state import State, read_state
    from polyfit.show.state import progress_line

    shown = ""
    while (state := read_state(opened, plan)).state is State.RUNNING:
        if (line := progress_line(state)) != shown:
            shown = line
            if as_json:
                _show(address, plan, state, as_json)
            else:
                click.echo(line)
        time.sleep(PAUSE_S)
    return state


def _show(
    address: "StoreAddress",
    plan: "Plan",
    state: "RunState",
    as_json: bool,
    receipt: "RunReceipt | None" = None,
    log: str | None = None,
) -> None:
    from polyfit.show.data import to_json
    from polyfit.show.state import state_facts, state_text

    if as_json:
        facts = {} if log is None else {"log": log}
        click.echo(to_json(state_facts(address, plan.hash, state, receipt) | facts))
        return
    click.echo(state_text(address, state, receipt))
    if log is not None:
        click.echo(f"\n{log.rstrip() or 'no log is stored'}")
