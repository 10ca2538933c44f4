"""The app: all commands."""

import sys
from typing import Any, NoReturn

import click

from polyfit import __version__
from polyfit.cli.compare import compare_runs
from polyfit.cli.error_handler import handle_error
from polyfit.cli.init import write_spec
from polyfit.cli.list import list_runs
from polyfit.cli.output import ClosedPipe, guarded_stdout, log_as_json
from polyfit.cli.plan import show_plan
from polyfit.cli.plot import plot_run
from polyfit.cli.report import write_report
from polyfit.cli.results import show_results
from polyfit.cli.run import run_specs
from polyfit.cli.schema import show_schema
from polyfit.cli.show import show_fit
from polyfit.cli.status import show_status
from polyfit.cli.submit import submit_specs
from polyfit.cli.validate import validate_specs
from polyfit.cli.verify import verify_run
from polyfit.errors import Exit, check_working_folder

__all__ = ["cli", "main"]


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of use, not of the alphabet

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # click would end the process with code 1
            raise ClosedPipe from error


def _exit_codes_help() -> str:
    # click keeps the line breaks of a paragraph that begins with \b.
    return "\n".join(["\b", "Exit codes:", *(f"  {code:>3}  {code.meaning}" for code in Exit)])


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_exit_codes_help(),
)
@click.version_option(__version__, prog_name="polyfit")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Many small polynomial fits by autograd, as one batch job."""
    check_working_folder()


for command in (
    write_spec,
    show_schema,
    validate_specs,
    show_plan,
    run_specs,
    submit_specs,
    list_runs,
    show_status,
    show_results,
    show_fit,
    compare_runs,
    write_report,
    plot_run,
    verify_run,
):
    cli.add_command(command)


def main() -> NoReturn:
    """Run the command line; whatever ends it becomes a message and an exit code."""
    debug = "--debug" in sys.argv
    log_as_json(False)
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        with guarded_stdout():
            code = cli.main(arguments, prog_name="polyfit", standalone_mode=False, obj=debug) or 0
    except BaseException as error:
        code = handle_error(error, debug)
    sys.exit(int(code))
