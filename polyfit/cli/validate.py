"""``polyfit validate``."""

import click

from polyfit.cli import options
from polyfit.cli.specs import check_fits_can_start
from polyfit.errors import OutputError, PolyfitError, SpecError

__all__ = ["validate_specs"]


@click.command("validate", short_help="Check specs without running them.")
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True)
@options.strict
def validate_specs(specs: tuple[str, ...], strict: bool) -> None:
    """Check specs without running them; report all problems of all files.

    SPEC is a YAML or JSON file, or - for standard input.
    """
    from polyfit.show.text import format_count
    from polyfit.spec.plan import Plan
    from polyfit.spec.spec import Spec

    problems: list[str] = []
    for path in specs:
        try:
            spec = Spec.load(path)
            plan = Plan.of(spec)
            check_fits_can_start(spec, plan, strict)
            click.echo(f"{spec.source}: {format_count(plan.fits, 'fit')}")
        except SpecError as error:
            problems += error.problems
        except OutputError:
            raise
        except PolyfitError as error:
            problems.append(str(error))
    if problems:
        raise SpecError(problems)
