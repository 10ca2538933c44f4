"""Options that several commands share."""

import math
from typing import Any, Final

import click

__all__ = ["Seconds", "as_json", "endpoint_url", "strict"]


class Seconds(click.FloatRange):
    """A number of seconds; not "nan", which would never be over."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a valid float range.", param, ctx)
        return seconds


endpoint_url: Final = click.option(
    "--endpoint-url", metavar="URL", help="S3 endpoint, else AWS_ENDPOINT_URL_S3."
)
as_json: Final = click.option(
    "--json", "as_json", is_flag=True, help="Write one JSON object to stdout."
)
strict: Final = click.option(
    "--strict", is_flag=True, help="Fits that cannot start are an error, not a warning."
)
