"""Commands, progress and exit codes. Heavy modules are imported by the command that needs them.

stdout holds what was asked for; everything else (progress, remarks, errors) goes to stderr.
"""

import atexit
import csv
import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, redirect_stdout, suppress
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from polyfit import __version__
from polyfit.errors import (
    DamagedRun,
    Exit,
    OutputError,
    PolyfitError,
    RunNotFound,
    check_working_folder,
    not_loaded,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from polyfit.run.results import Group, ListedRun, Run, StoredFit
    from polyfit.show.show import Recomputed
    from polyfit.spec.plan import Plan
    from polyfit.spec.precheck import Precheck
    from polyfit.spec.spec import Spec
    from polyfit.work.progress import Progress

__all__ = ["main", "program"]

LINE_EVERY_S: Final = 5.0
DEFAULT_LIMIT: Final = 20
MAX_PROBLEMS: Final = 20
HISTORY_ENDS: Final = 3
RESENT_AFTER_S: Final = 0.05

Command = Callable[..., Any]


class _Unheard(Exception):
    """A broken pipe, under a name that click and rich do not end the process for."""


class _Seconds(click.FloatRange):
    """A time to wait; that "nan" is over would never be true."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a valid float range.", param, ctx)
        return seconds


class _Commands(click.Group):
    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except BrokenPipeError as error:
            raise _Unheard from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="polyfit")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Many small polynomial fits by autograd, as one batch job.

    Exit codes: 0 complete; 1 internal error; 2 bad spec or usage, or a package is missing; 3 shards
    failed or rows damaged; 4 another driver holds the run; 5 storage unreachable or refusing;
    6 the cluster cannot do it; 130 ended by Ctrl-C; 143 ended by SIGTERM. Of several specs, the
    code of the first that failed.
    """
    check_working_folder()


def main() -> NoReturn:
    """Run the command line; a user's mistake ends in a message, not in a traceback."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    output: Any = _Output(sys.stdout)
    try:
        with redirect_stdout(output):
            code = cli.main(arguments, prog_name="polyfit", standalone_mode=False, obj=debug) or 0
            output.flush()
    except PolyfitError as error:
        code = _tell(*_told(error), debug)
    except click.ClickException as error:
        with _unheeded():
            error.show()
        code = int(Exit.USAGE)
    except (KeyboardInterrupt, click.Abort):
        code = _tell("interrupted; the same command goes on from here", Exit.INTERRUPTED, debug)
    except SystemExit:
        told = "ended by SIGTERM; the same command goes on from here"
        code = _tell(told, Exit.DRAINED, debug)
    except (_Unheard, BrokenPipeError):
        code = _unheard()
    except Exception as error:
        code = _tell(*_told(error), debug)
    sys.exit(code)


def program() -> NoReturn:
    """``main`` as a process of its own.

    It ends after the exit handlers (Ray's among them) and without the interpreter's teardown:
    native threads of the numeric libraries were seen to abort there, after all was done, in some
    of the shortest runs on a busy machine.
    """
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(Exit.INTERNAL)
    except KeyboardInterrupt:  # another one, while the first was told
        code = int(Exit.INTERRUPTED)
    for number in _SIGNALS:  # all is said: what is left is not to be waited for
        signal.signal(number, lambda *_: os._exit(code))
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    atexit._run_exitfuncs()
    os._exit(code)


_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def _signals_raised() -> Iterator[None]:
    """A signal raises, so that a run that has begun is noted and let go of."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, hook = [signal.getsignal(number) for number in _SIGNALS], sys.unraisablehook
    raising = (signal.default_int_handler, _raise)
    sys.unraisablehook = partial(_send_again, hook)
    for number, handler, was in zip(_SIGNALS, raising, before, strict=True):
        if was != signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, was in zip(_SIGNALS, before, strict=True):
            signal.signal(number, was)


def _send_again(hook: Callable[[Any], Any], lost: "sys.UnraisableHookArgs") -> None:
    """What a signal raises where Python calls back, as it does at each import, is lost."""
    number = {KeyboardInterrupt: signal.SIGINT, SystemExit: signal.SIGTERM}.get(lost.exc_type)
    if number is None:
        hook(lost)
    else:
        threading.Timer(RESENT_AFTER_S, os.kill, (os.getpid(), number)).start()


def _raise(number: int, frame: Any) -> NoReturn:
    raise SystemExit(int(Exit.DRAINED))


def _unheard() -> int:
    """Whoever read our output has seen enough: the rest goes nowhere, without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def _told(error: Exception) -> tuple[str, Exit]:
    """The message and the exit code of an error that ends a command."""
    if isinstance(error, PolyfitError):
        return str(error), error.exit_code
    if isinstance(error, ImportError):
        return not_loaded(error), Exit.USAGE
    told = f"internal error: {type(error).__name__}: {error} (--debug shows where)"
    return told, Exit.INTERNAL


class _Output:
    """Standard output; that it takes no more has names that click and rich leave alone."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: Any) -> Any:
        """As of the stream; raises OutputError, or _Unheard where nobody reads any more."""
        with _named():
            return self._stream.write(text)

    def flush(self) -> None:
        """As of the stream; raises as ``write`` does."""
        with _named():
            self._stream.flush()


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise _Unheard from error
    except OSError as error:
        told = f"standard output: {error.strerror or error}; what it was to hold is cut short"
        raise OutputError(told) from None


@contextmanager
def _unheeded() -> Iterator[None]:
    """Messages on a stderr that takes no more (a full disk, a reader that has gone) are lost: no
    run is."""
    with suppress(OSError):
        yield


def _tell(message: str, code: Exit, debug: bool, name: str | None = None) -> int:
    """Say what ended a command, or the run called ``name`` where others follow."""
    if debug:
        with _unheeded():
            traceback.print_exc()
    head = "polyfit: " if name is None else f"polyfit: {name}: "
    _remark("\n".join(head + line for line in message.splitlines()))
    return int(code)


def _remark(line: str) -> None:
    with _unheeded():
        click.echo(line, err=True)


def _endpoint(command: Command) -> Command:
    return click.option(
        "--endpoint-url", metavar="URL", help="An S3 endpoint; else AWS_ENDPOINT_URL_S3."
    )(command)


def _as_json(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")(
        command
    )


def _strictly(command: Command) -> Command:
    return click.option(
        "--strict", is_flag=True, help="Fits that cannot start are an error, and no warning."
    )(command)


@cli.command()
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True)
@_strictly
def validate(specs: tuple[str, ...], strict: bool) -> None:
    """Read specs and say what is wrong in them; - is standard input."""
    from polyfit.errors import SpecError
    from polyfit.spec.plan import Plan
    from polyfit.spec.spec import Spec

    problems: list[str] = []
    for path in specs:
        try:
            loaded = Spec.load(path)
            made = Plan.of(loaded)
            _check(loaded, made, strict)
            click.echo(f"{loaded.source}: {_count(made.fits, 'fit')}")
        except SpecError as error:
            problems += error.problems
        except OutputError:
            raise
        except PolyfitError as error:
            problems.append(str(error))
    if problems:
        raise SpecError(problems)


@cli.command()
@click.argument("spec", metavar="SPEC")
@_strictly
@_as_json
def plan(spec: str, strict: bool, as_json: bool) -> None:
    """Say what would run: fits, shards, axes, engine, projected bytes, plan hash.

    - is standard input.
    """
    from polyfit.spec.plan import Plan
    from polyfit.spec.spec import Spec

    loaded = Spec.load(spec)
    made = Plan.of(loaded)
    found, cores = _check(loaded, made, strict), _cores()
    facts = {
        "name": loaded.name,
        "fits": made.fits,
        "shards": made.shards,
        "fits_per_shard": made.shard_fits,
        "axes": [{"fields": list(axis.fields), "values": len(axis)} for axis in loaded.axes],
        "engine": made.engine,
        "projected_bytes": made.projected_bytes,
        "projected_core_seconds": made.seconds,
        "projected_seconds": made.wall_seconds(cores),
        "plan_hash": made.hash,
        "run_id": made.run_id,
        "cannot_start": {
            "fits": found.cannot_start,
            "unchecked": found.unchecked,
            "causes": [{"cause": cause.told, "fits": cause.fits} for cause in found.causes],
        },
    }
    if as_json:
        click.echo(json.dumps(facts, allow_nan=False))
        return
    axes = " x ".join(f"{'+'.join(axis.fields)} {len(axis):,}" for axis in loaded.axes)
    lines = [
        ("fits", f"{made.fits:,}"),
        ("axes", axes or "none"),
        ("shards", f"{made.shards:,} of {made.shard_fits:,} fits"),
        ("engine", made.engine),
        ("work", f"{_duration(made.seconds)} on one core, nominal"),
        ("time", f"about {_duration(_rough(made.wall_seconds(cores)))} here, on {cores} cores"),
        ("bytes", f"{_bytes(made.projected_bytes)} projected, before compression"),
        ("plan hash", made.hash),
        ("run id", made.run_id),
    ]
    for name, value in lines:
        click.echo(f"{name:<10} {value}")


def _refuse(specs: "list[Spec]") -> None:
    """Refuse all specs where one has fits that cannot start; else the run warns itself."""
    from polyfit.errors import SpecError
    from polyfit.spec.plan import Plan
    from polyfit.spec.precheck import Precheck

    found = [(spec, Precheck.of(Plan.of(spec).sweep)) for spec in specs]
    problems = [line for spec, one in found if one.cannot_start for line in one.lines(spec)]
    if problems:
        raise SpecError(problems)


def _check(spec: "Spec", plan: "Plan", strict: bool) -> "Precheck":
    """Warn of fits that cannot start; where ``strict``, they are an error."""
    from polyfit.errors import SpecError
    from polyfit.spec.precheck import Precheck

    found = Precheck.of(plan.sweep)
    lines = found.lines(spec)
    if strict and found.cannot_start:
        raise SpecError(lines)
    for line in lines:
        _remark(f"warning: {line}")
    return found


@cli.command()
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True)
@click.option("--store", metavar="URI", help="A folder or s3://bucket/prefix  [./runs]")
@_endpoint
@click.option("--run-id", metavar="ID", help="The run's name in the store  [from the plan]")
@click.option("--executor", type=click.Choice(["auto", "ray", "inline"]), default="auto",
              help="Where to fit: Ray actors, or this process.")  # fmt: skip
@click.option("--address", metavar="ADDR", help="A Ray cluster to join; else RAY_ADDRESS.")
@click.option("--placement-timeout", type=_Seconds(min=0), default=600.0, metavar="S",
              help="Seconds to wait while the cluster has no room  [600]")  # fmt: skip
@click.option("--wait", "wait_s", type=_Seconds(min=0), default=20.0, metavar="S",
              help="Seconds to wait for another driver of the run to end  [20]")  # fmt: skip
@click.option("--retry-failed", is_flag=True, help="Try again shards that were set aside.")
@click.option("--reuse", metavar="RUN",
              help="Another run's folder: what is at rest there is not fitted again.")  # fmt: skip
@_strictly
@_as_json
@click.pass_obj
def run(
    debug: bool,
    specs: tuple[str, ...],
    store: str | None,
    endpoint_url: str | None,
    run_id: str | None,
    executor: str,
    address: str | None,
    placement_timeout: float,
    wait_s: float,
    retry_failed: bool,
    reuse: str | None,
    strict: bool,
    as_json: bool,
) -> int:
    """Run specs to their end; the same command resumes what broke off.

    A SPEC is a YAML or JSON file, or - for standard input.
    All are read first, and none is run where one is a bad spec. Where one of several fails, the
    others are run all the same; the exit code is that of the first that failed. With --json one
    spec gives its summary, several give {"runs": [...]}; of a run that failed it holds name,
    exit_code and error.
    """
    from polyfit.errors import SpecError
    from polyfit.spec.spec import Spec

    loaded: list[Spec] = []
    problems: list[str] = []
    for path in specs:  # all are read, and what is wrong in any told, before any is run
        try:
            loaded.append(Spec.load(path))
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
    if strict:
        _refuse(loaded)
    from polyfit.work.driver import Drained, execute

    def run_one(spec: Spec, shown: _Shown) -> dict[str, Any] | None:
        with ExitStack() as ending:  # Ray ends while the summary is made
            # Ray prints what befalls its nodes to stdout, which is for what was asked for.
            with shown, redirect_stdout(sys.stderr):
                finished = execute(
                    spec,
                    store=store,
                    endpoint_url=endpoint_url,
                    run_id=run_id,
                    executor=executor,
                    address=address,
                    placement_timeout_s=placement_timeout,
                    wait_s=wait_s,
                    retry_failed=retry_failed,
                    reuse=reuse,
                    on_progress=shown.update,
                    on_message=shown.tell,
                    closing=ending,
                )
            with shown.reading():
                if not as_json:
                    _present(finished)
                    return None
                summary = _summary(spec, finished)
            if reuse is not None:
                summary["fits_reused"] = shown.fits_reused
            return summary

    summaries, codes = [], []
    with _signals_raised():
        for spec in loaded:
            shown = _Shown(spec.name)
            try:
                summaries.append(run_one(spec, shown))
            except (Drained, _Unheard, BrokenPipeError):
                raise
            except Exception as error:
                if len(loaded) == 1:
                    raise
                told, code = _told(error)
                codes.append(_tell(told, code, debug, spec.name))
                summaries.append({"name": spec.name, "exit_code": int(code), "error": told})
            if shown.signal is not None and spec is not loaded[-1]:
                signal.raise_signal(shown.signal)  # it came too late for this run, not for the next
    if as_json:
        whole = summaries[0] if len(summaries) == 1 else {"runs": summaries}
        click.echo(json.dumps(whole, allow_nan=False))
    return codes[0] if codes else int(Exit.COMPLETE)


@cli.command()
@click.argument("run", metavar="RUN")
@_endpoint
@click.option("--sort", metavar="COLUMN", help="Smallest first; -COLUMN for largest first.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N",
              help=f"Rows to show  [{DEFAULT_LIMIT}; all with --json and --csv]")  # fmt: skip
@click.option("--where", metavar="EXPR", help="For example: degree == 3 and loss < 0.1")
@_as_json
@click.option("--csv", "as_csv", is_flag=True, help="CSV on stdout.")
def results(
    run: str,
    endpoint_url: str | None,
    sort: str | None,
    limit: int | None,
    where: str | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show rows of RUN, a run's folder: <store>/<name>/<run id>.

    Of <store> or <store>/<name> list the runs in it.
    """
    from polyfit.run.results import Run, runs_below
    from polyfit.store.store import StoreAddress

    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    try:
        opened = Run.open(run, endpoint_url)
    except RunNotFound as error:
        address = StoreAddress.of(run, endpoint_url)
        listed = list(runs_below(address))
        if not listed:
            raise
        if sort or limit or where:
            raise RunNotFound(
                f"{error}; `polyfit results {address}` lists the runs in it"
            ) from None
        _list_runs(listed, as_json, as_csv)
        return
    if as_json or as_csv:
        parts = (
            [opened.top(sort, limit, where=where)] if sort or limit else opened.batches(where=where)
        )
        _write_json(opened, parts) if as_json else _write_csv(parts)
        return
    shown = ("fit", *_varied(opened), "status", "steps_taken", "loss", "excess_loss", "max_error")
    columns = list(dict.fromkeys((*shown, *([sort.removeprefix("-")] if sort else ()))))
    rows = opened.top(sort, limit or DEFAULT_LIMIT, columns, where)
    _print_rows(rows)
    told = _count(len(rows), "row")
    _remark(told if where else f"{told} of {opened.plan.fits:,}")
    if not opened.complete:
        _remark(f"this run is not complete, what is at rest is shown; {opened.driver()}")


@cli.command(context_settings={"ignore_unknown_options": True})  # -1 is an index, though a bad one
@click.argument("run", metavar="RUN")
@click.argument("fit", metavar="FIT", type=int)
@click.option("--recompute", "again", is_flag=True,
              help="Compute the fit again on this machine's CPU, and compare.")  # fmt: skip
@_endpoint
@_as_json
def show(run: str, fit: int, again: bool, endpoint_url: str | None, as_json: bool) -> None:
    """Show everything about one fit of RUN: FIT is its index, counted from 0."""
    from polyfit.run.results import Run
    from polyfit.show.show import recompute

    opened = Run.open(run, endpoint_url)
    stored = opened.stored(fit)
    if not as_json:
        _print_fit(opened, stored)
    recomputed = recompute(opened, stored) if again else None
    if as_json:
        click.echo(json.dumps(_fit_facts(opened, stored, recomputed), allow_nan=False))
    elif recomputed is not None:
        click.echo(f"\nrecomputed: {recomputed}")
    if recomputed is not None and recomputed.damaged:
        raise DamagedRun(_damage(opened, stored, recomputed))


@cli.command()
@click.argument("run", metavar="RUN")
@_endpoint
@_as_json
def verify(run: str, endpoint_url: str | None, as_json: bool) -> None:
    """Prove that RUN holds every fit of its plan exactly once, every shard intact."""
    from polyfit.run.results import Run

    opened = Run.open(run, endpoint_url)
    verdict = opened.verify()
    if as_json:
        facts = {
            "run": opened.uri,
            "endpoint_url": opened.endpoint_url,
            "plan_hash": opened.plan.hash,
            "intact": not verdict.problems,
            "shards": verdict.shards,
            "fits": verdict.fits,
            "bytes": verdict.bytes,
            "statuses": verdict.statuses,
            "problems": verdict.problems,
        }
        click.echo(json.dumps(facts, allow_nan=False))
    if verdict.problems:
        count = len(verdict.problems)
        more = [f"... and {count - MAX_PROBLEMS:,} more"] if count > MAX_PROBLEMS else []
        head = f"{opened.uri}: {_count(count, 'problem')}"
        raise DamagedRun("\n".join([head, *verdict.problems[:MAX_PROBLEMS], *more]))
    if not as_json:
        click.echo(
            f"intact: {_count(verdict.fits, 'fit')}, each once, "
            f"in {_count(verdict.shards, 'shard')} ({_bytes(verdict.bytes)}); "
            f"{_statuses(verdict.statuses)}"
        )


# --- progress --------------------------------------------------------------------------------


class _Shown:
    """Progress on stderr: a bar on a terminal, elsewhere lines with the time."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._clock = name, clock
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._bar: Any = None
        self._task: Any = None
        self._line_at, self._counts = -math.inf, ""
        self.fits_reused = 0
        self.signal: int | None = None

    def __enter__(self) -> "_Shown":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tell(self, line: str) -> None:
        """Show a line; above the bar, where there is one."""
        self._line_at = self._clock()
        _remark(f"{'' if self._terminal else f'{_time()} '}{self._name}: {line}")

    def update(self, progress: "Progress") -> None:
        """Show how far the run is."""
        self.fits_reused, self.signal = progress.fits_reused, progress.signal
        if self._terminal:
            self._on_terminal(progress)
        else:
            self._in_lines(progress)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What is done meanwhile reads the results, which takes minutes where there are many."""
        from polyfit.work.heartbeat import Ticker
        from polyfit.work.progress import QUIET_AFTER_S

        def look() -> None:
            if self._clock() - self._line_at >= QUIET_AFTER_S:
                self.tell("reading the results")

        with closing(Ticker(look)):
            yield

    def _on_terminal(self, progress: "Progress") -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn(self._name),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("fits"),
                TimeRemainingColumn(),
                TextColumn("{task.description}", markup=False),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task("", total=progress.fits)
            self._bar.start()
        self._bar.update(self._task, completed=progress.fits_done, description=_stage(progress))

    def _in_lines(self, progress: "Progress") -> None:
        from polyfit.work.progress import QUIET_AFTER_S

        failed = f", {progress.failed} shards failed" if progress.failed else ""
        counts = (
            f"{progress.fits_done:,} of {_count(progress.fits, 'fit')}, "
            f"{progress.shards_done:,} of {_count(progress.shards, 'shard')} at rest{failed}"
        )
        last, since = progress.fits_done == progress.fits, self._clock() - self._line_at
        if (counts != self._counts and (last or since >= LINE_EVERY_S)) or since >= QUIET_AFTER_S:
            done = last and counts != self._counts
            self._counts = counts
            self.tell(counts if done else f"{counts}; {_stage(progress)}")


def _time() -> str:
    from polyfit.run.ledger import now

    return now()


def _stage(progress: "Progress") -> str:
    """What a run is at; where nothing has come for long, for how long."""
    from polyfit.work.progress import QUIET_AFTER_S

    quiet = progress.quiet_s >= QUIET_AFTER_S
    return progress.stage + (f", nothing new for {progress.quiet_s:.0f} s" if quiet else "")


# --- what came out ---------------------------------------------------------------------------


def _present(run: "Run") -> None:
    if run.plan.fits == 1:
        _print_single(run)
    else:
        _print_groups(run.groups())
    manifest = run.manifest
    assert manifest is not None
    click.echo(f"{_count(run.plan.fits, 'fit')}: {_statuses(manifest.statuses)}")
    click.echo(f"results: {run.address}")


def _print_single(run: "Run") -> None:
    """As the tutorial prints it: update and loss, then the polynomial."""
    from polyfit.show.show import equations

    fit = run.plan.sweep.fit(0)
    row = run.row(0)
    for update, loss in zip(
        run.plan.record.updates(fit.steps), row.get("loss_history") or (), strict=False
    ):
        click.echo(f"{update} {loss}")
    if row["status"] == "diverged":
        click.echo(f"No result: the fit diverged, {_count(row['steps_taken'], 'update')} taken")
        return
    own, in_x = equations(row)
    click.echo(f"Result: {in_x or own}")


def _print_groups(groups: "list[Group]") -> None:
    """Per degree and range; the last but one column counts fits over 1% above the optimum."""
    table = _table("degree", "range", "fits", "best loss", "median loss", ">1% off", "statuses")
    for group in groups:
        table.add_row(
            str(group.degree),
            f"[{group.low:.5g}, {group.high:.5g}]",
            f"{group.fits:,}",
            _number(group.best_loss),
            _number(group.median_loss),
            _share(group),
            _statuses(group.statuses),
        )
    _print_table(table)


def _share(group: "Group") -> str:
    """Fits over 1% above the optimum; out of how many, where not all have a known optimum."""
    if group.above_optimum is None:
        return "-"
    of_all = group.with_optimum == group.fits
    return f"{group.above_optimum:,}" + ("" if of_all else f" of {group.with_optimum:,}")


def _summary(spec: "Spec", run: "Run") -> dict[str, Any]:
    manifest = run.manifest
    assert manifest is not None
    summary: dict[str, Any] = {
        "name": spec.name,
        "run": run.uri,
        "endpoint_url": run.endpoint_url,
        "plan_hash": run.plan.hash,
        "fits": run.plan.fits,
        "shards": run.plan.shards,
        "statuses": manifest.statuses,
        "groups": [
            {
                "degree": group.degree,
                "range": [group.low, group.high],
                "fits": group.fits,
                "best_loss": group.best_loss,
                "median_loss": group.median_loss,
                "statuses": group.statuses,
                "with_optimum": group.with_optimum,
                "above_optimum": group.above_optimum,
            }
            for group in run.groups()
        ],
    }
    if run.plan.fits == 1:
        summary["fit"] = run.row(0)
    return summary


def _varied(run: "Run") -> list[str]:
    """The columns of the fields that this run's sweep varies."""
    fields = [field for axis in run.plan.sweep.axes for field in axis.fields]
    columns = ("range_low", "range_high")
    return [name for field in fields for name in (columns if field == "range" else (field,))]


def _print_rows(rows: "pa.Table") -> None:
    table = _table(*rows.column_names)
    for row in rows.to_pylist():
        table.add_row(*(_cell(value) for value in row.values()))
    _print_table(table)


def _write_json(run: "Run", parts: Any) -> None:
    """One object, written row by row so that memory holds one shard."""
    head = {
        "run": run.uri,
        "endpoint_url": run.endpoint_url,
        "plan_hash": run.plan.hash,
        "complete": run.complete,
    }
    click.echo(json.dumps(head)[:-1] + ', "rows": [', nl=False)
    first = True
    for part in parts:
        for row in part.to_pylist():
            click.echo(("" if first else ",") + "\n" + json.dumps(row, allow_nan=False), nl=False)
            first = False
    click.echo("\n]}")


def _list_runs(listed: "list[ListedRun]", as_json: bool, as_csv: bool) -> None:
    """Show the runs of a folder, each so that it can be opened."""
    runs = [
        {
            "run": run.address.uri,
            "endpoint_url": run.address.endpoint_url,
            "fits": run.fits,
            "complete": run.complete,
        }
        for run in listed
    ]
    if as_json:
        click.echo(json.dumps({"runs": runs}))
        return
    if as_csv:
        writer = csv.DictWriter(sys.stdout, list(runs[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(runs)
        return
    for run in listed:
        fits = "of another version" if run.fits is None else _count(run.fits, "fit")
        click.echo(f"{run.address}  ({fits}{'' if run.complete else ', not complete'})")
    _remark(f"{_count(len(runs), 'run')}; name one to see its rows")


def _write_csv(parts: Any) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for number, part in enumerate(parts):
        if number == 0:
            writer.writerow(part.column_names)
        for row in part.to_pylist():
            writer.writerow(
                json.dumps(value) if isinstance(value, list) else value for value in row.values()
            )


def _print_fit(run: "Run", stored: "StoredFit") -> None:
    """Where one fit lies, its row, its equations and its curve."""
    from polyfit.show.show import curve, equations

    row, shard, made = stored.row, stored.shard, stored.footer
    lines = [
        ("run", str(run.address)),
        ("shard", f"{stored.key}: fits {shard.start} to {shard.stop - 1}"),
        ("made by", f"engine {made.get('engine')}, torch {made.get('torch')}, "
                    f"{made.get('device')}, on {made.get('cpu')}"),
    ]  # fmt: skip
    for name, value in row.items():
        if name.endswith("_history"):
            lines.append((name, _history(run.plan.record.updates(row["steps"]), value)))
        elif name not in ("coefficients", "power_coefficients"):
            lines.append((name, "-" if value is None else str(value)))
    for name, value in lines:
        click.echo(f"{name:<21} {value}")
    own, in_x = equations(row)
    click.echo(f"\n{own}")
    if in_x is None:
        click.echo("in powers of x: not known without changing its predictions")
    elif in_x != own:
        click.echo(in_x)
    click.echo("\n" + "\n".join(curve(row)))


def _history(updates: list[int], values: list[Any]) -> str:
    """The first and last of what was recorded, each after its update's number."""
    shown = [f"{u}: {_cell(value)}" for u, value in zip(updates, values, strict=False)]
    if len(shown) > 2 * HISTORY_ENDS:
        shown[HISTORY_ENDS:-HISTORY_ENDS] = ["..."]
    return f"{len(values):,} recorded" + (f"; {', '.join(shown)}" if shown else "")


def _fit_facts(run: "Run", stored: "StoredFit", recomputed: "Recomputed | None") -> Any:
    from polyfit.show.show import equations

    own, in_x = equations(stored.row)
    facts = {
        "run": run.uri,
        "endpoint_url": run.endpoint_url,
        "plan_hash": run.plan.hash,
        "fit": stored.fit,
        "shard": {
            "number": stored.shard.number,
            "key": stored.key,
            "fits": [stored.shard.start, stored.shard.stop],
            "footer": stored.footer,
        },
        "row": stored.row,
        "equation": own,
        "equation_in_x": in_x,
        "recomputed": None if recomputed is None else {
            "same_bits": not recomputed.differing,
            "differing": recomputed.differing,
            "damaged": recomputed.damaged,
            "here": recomputed.here,
            "there": recomputed.there,
            "torch": recomputed.torch,
            "tolerance": recomputed.tolerance,
            "within": recomputed.within,
            "loss_off": recomputed.loss_off,
            "coefficients_off": recomputed.coefficients_off,
            "row": recomputed.row,
        },
    }  # fmt: skip
    return _strict(facts)


def _strict(value: Any) -> Any:
    """The same with null for a number that is not finite: a damaged row may hold one."""
    if isinstance(value, dict):
        return {name: _strict(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _damage(run: "Run", stored: "StoredFit", recomputed: "Recomputed") -> str:
    """What differs where nothing should."""
    from polyfit.run.rows import REFIT_HINT

    lines = [
        f"{run.uri}/{stored.key}: fit {stored.fit} differs from what its plan gives "
        f"in {', '.join(recomputed.damaged)}; {REFIT_HINT}"
    ]
    made, here = stored.footer.get("torch"), recomputed.torch
    if made != here:
        lines.append(f"(the shard was made with torch {made}, computed again with {here})")
    for name in recomputed.damaged:
        one, other = stored.row.get(name), recomputed.row.get(name)
        if isinstance(one, list) and isinstance(other, list):
            count = sum(repr(a) != repr(b) for a, b in zip_longest(one, other))
            lines.append(f"{name}: {count} of {len(other)} differ")
        else:
            lines.append(f"{name}: {one} stored, {other} recomputed")
    return "\n".join(lines)


def _table(*names: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        words = name in ("range", "statuses", "status", "basis", "target", "optimizer", "objective")
        table.add_column(name, justify="left" if words else "right", no_wrap=True)
    return table


def _print_table(table: Any) -> None:
    """As wide as it needs to be: a line that wraps is better than a number cut short."""
    from rich.console import Console

    needed = Console(width=10_000).measure(table).maximum
    Console(highlight=False, width=needed).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list):
        return "[" + ", ".join(_cell(item) for item in value) + "]"
    return str(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _statuses(statuses: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in statuses.items())


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _bytes(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"
        number /= 1024
    return f"{number:,.1f} TiB"


def _rough(seconds: float) -> float:
    return float(f"{seconds:.2g}")


def _cores() -> int:
    """Those that this process may use."""
    known = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(known(0)) if known else os.cpu_count() or 1


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:,.3g} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
