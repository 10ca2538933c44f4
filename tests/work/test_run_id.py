"""Names of runs."""

from pathlib import Path

import pytest
from hostile import PATHS

import polyfit
from polyfit.errors import UsageError
from polyfit.spec.spec import Spec


@pytest.mark.parametrize("run_id", PATHS, ids=lambda name: ascii(name[:20]))
def test_a_run_id_that_is_a_path_is_refused(run_id: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="allowed: 1 to 63 of a-z, 0-9 and -"):
        polyfit.execute(
            Spec.parse("name: a"), store=f"{tmp_path}/store", run_id=run_id, executor="inline"
        )
    assert list(tmp_path.iterdir()) == []
