"""``polyfit schema``."""

import click

__all__ = ["show_schema"]


@click.command("schema", short_help="Print a JSON Schema of specs, for editors.")
def show_schema() -> None:
    """Print a JSON Schema (draft 2020-12) of specs: editors complete and check specs by it."""
    import json

    from polyfit.spec.json_schema import spec_schema

    click.echo(json.dumps(spec_schema(), indent=2))
