"""The table of exit codes, and the message for a package that cannot be imported."""

import importlib.metadata
import sys

import pytest

from polyfit.errors import Exit, import_error_message


def test_exit_codes_are_the_documented_ones() -> None:
    assert {code.name: int(code) for code in Exit} == {
        "COMPLETE": 0,
        "INTERNAL": 1,
        "USAGE": 2,
        "FAILED_SHARDS": 3,
        "HELD": 4,
        "STORAGE": 5,
        "CLUSTER": 6,
        "UNFINISHED": 7,
        "WORSE": 8,
        "INTERRUPTED": 130,
        "CLOSED_PIPE": 141,
        "DRAINED": 143,
    }


@pytest.mark.parametrize(
    ("error", "start"),
    [
        (
            ImportError("libcudart.so.13: cannot open\n shared object", name="torch"),
            "a package cannot be loaded in the Python environment {here}: "
            "libcudart.so.13: cannot open shared object; install",
        ),
        (
            ModuleNotFoundError(
                "No module named 'polyfit.work.driver'", name="polyfit.work.driver"
            ),
            "polyfit is incomplete in the Python environment {here}: No module named",
        ),
        (
            importlib.metadata.PackageNotFoundError("torch"),
            "the package 'torch' is missing in the Python environment {here}; install",
        ),
    ],
)
def test_a_package_that_cannot_be_loaded_is_named_in_one_line(
    error: ImportError, start: str
) -> None:
    here = f"{sys.prefix} ({sys.executable})"
    assert import_error_message(error).startswith(start.format(here=here))
    assert "\n" not in import_error_message(error)
