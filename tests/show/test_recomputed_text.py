"""A recomputation in one line."""

from typing import Any

import pytest

from polyfit.show.fit import recomputed_text
from polyfit.work.recompute import Recomputed

ROW: dict[str, Any] = {"dtype": "float32", "status": "completed", "loss": 1.0}


def text(there: str = "this CPU", loss_off: float = 0.0, **stored: object) -> str:
    """For a stored row with changes; the recomputed row is ROW."""
    both = Recomputed(ROW, ROW | stored, "this CPU", there, "2.0", loss_off, 2e-4)
    return recomputed_text(both)


@pytest.mark.parametrize("there", ["this CPU", "abacus"])
def test_the_same_bits(there: str) -> None:
    assert text(there) == "the same bits as stored"


def test_other_bits_on_the_same_cpu_name_their_columns() -> None:
    assert text(status="converged", loss=2.0) == "other bits than stored in status, loss"


@pytest.mark.parametrize(("off", "within"), [(1e-4, "within"), (0.01, "beyond")])
def test_other_bits_from_another_cpu_have_a_tolerance(off: float, within: str) -> None:
    assert text("abacus", off, loss=1.1) == (
        "the shard was made on another kind of CPU or device (abacus): the loss differs by "
        f"{off:.2g} of its value, the coefficients by 0.0002 of the largest: {within} the "
        "tolerance 0.001"
    )


def test_another_status_from_another_cpu_is_named() -> None:
    assert text("abacus", status="converged") == (
        "the shard was made on another kind of CPU or device (abacus): "
        "status converged stored, completed recomputed"
    )
