"""``polyfit init``."""

import click

from polyfit.errors import UsageError

__all__ = ["write_spec"]


@click.command("init", short_help="Write a commented spec to begin with.")
@click.argument("file", required=False)
@click.option("--name", metavar="NAME", help="Name of the spec, else from the file's.")
def write_spec(file: str | None, name: str | None) -> None:
    """Write a commented spec to FILE, or to standard output (also -). It runs as it stands.

    FILE must not exist.
    """
    from polyfit.spec.spec import Spec
    from polyfit.spec.template import name_for, spec_template

    file = None if file == "-" else file
    text = spec_template(name_for(file) if name is None else name)
    Spec.parse(text, "--name" if name is not None else file)
    if file is None:
        click.echo(text, nl=False)
        return
    try:
        with open(file, "x", encoding="utf-8") as new:
            new.write(text)
    except FileExistsError:
        raise UsageError(f"{file} exists; allowed: a new file, or standard output") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{file}: {reason}; allowed: a new file") from None
    click.echo(f"{file}: a spec to begin with; `polyfit run {file}` runs it")
