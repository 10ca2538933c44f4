"""A chart as a file: SVG, PNG, HTML or Vega-Lite's JSON, without a browser or the network."""

from pathlib import PurePath
from typing import Any, Final

import altair as alt
import vl_convert

__all__ = ["FORMATS", "chart_bytes", "script_bundle"]

FORMATS: Final = ("svg", "png", "html", "json")
PNG_SCALE: Final = 2.0


def chart_bytes(chart: Any, path: PurePath) -> bytes:
    """The chart in the format that the path's suffix, one of ``FORMATS``, names."""
    spec, version = chart.to_json(indent=None), _version()
    match path.suffix.lower():
        case ".svg":
            return vl_convert.vegalite_to_svg(spec, version).encode()
        case ".png":
            return bytes(vl_convert.vegalite_to_png(spec, version, scale=PNG_SCALE))
        case ".html":
            return vl_convert.vegalite_to_html(spec, version, bundle=True).encode()
    return str(chart.to_json(indent=2)).encode()


def script_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, for a page without network."""
    snippet = "window.vegaEmbed = vegaEmbed;"  # the one name that the page needs
    return str(vl_convert.javascript_bundle(snippet, _version()))


def _version() -> str:
    """The Vega-Lite version that altair writes for: ``6.4``."""
    return ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
