"""Which fields of a fit do not go together."""

from specs import defects, spec


def test_a_combination_within_a_zip_is_checked_row_by_row() -> None:
    text = "fit: {points: 9}\nsweep: {zip: [{degree: [3, 9], points: [4, 10]}]}"
    assert len(spec(text).grids[0].axes) == 1
    (found,) = defects(text.replace("[4, 10]", "[10, 4]"))
    assert "sweep.zip[0].points[1]: found 4 points at degree 9" in found
