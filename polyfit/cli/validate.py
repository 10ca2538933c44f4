"""``polyfit validate``."""

import click

from polyfit.cli import options
from polyfit.cli.specs import warn_or_refuse
from polyfit.errors import PolyfitError, SpecError

__all__ = ["validate_specs"]


@click.command("validate", short_help="Check specs without running them.")
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True)
@options.settings
@options.strict
def validate_specs(specs: tuple[str, ...], settings: tuple[str, ...], strict: bool) -> None:
    """Check specs without running them; report all problems of all files.

    SPEC is a YAML or JSON file, or - for standard input.
    """
    problems: list[str] = []
    excerpts: dict[str, str] = {}
    for path in specs:
        try:
            line = _check(path, settings, strict)
        except SpecError as error:
            problems += error.problems
            excerpts |= error.excerpts
        except PolyfitError as error:
            problems.append(str(error))
        else:
            click.echo(line)
    if problems:
        raise SpecError(list(dict.fromkeys(problems)), excerpts)


def _check(path: str, settings: tuple[str, ...], strict: bool) -> str:
    """What to print about a spec without problems."""
    from polyfit.show.text import format_count
    from polyfit.spec.plan import Plan
    from polyfit.spec.spec import Spec

    spec = Spec.load(path, settings)
    plan = Plan.of(spec)
    warn_or_refuse(spec, plan, strict)
    return f"{spec.source}: {format_count(plan.fits, 'fit')}"
