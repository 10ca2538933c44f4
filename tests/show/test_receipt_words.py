"""What a run has taken, in words."""

from polyfit.run.run_receipt import RunReceipt
from polyfit.show.receipt import receipt_pairs


def test_large_numbers_are_written_out() -> None:
    usage = {
        "seconds": 35.38, "fits": 10_000_000, "fits_reused": 0, "retries": {}, "bytes": 2,
        "core_seconds": {"fitting": 2_345_678.0, "other": 26_000.0}, "gpu_seconds": {},
        "hosts": ["vm"],
    }  # fmt: skip
    receipt = RunReceipt.of([{"usage": usage}], complete=True)
    told = dict(receipt_pairs(receipt))
    assert told["took"] == "35.4 s in 1 attempt, 283,000 fits a second"
    assert told["cores"] == "2,370,000 core-seconds (658.8 core-hours): 99% fitting, 1% other"
    assert str(receipt) == (
        "took 35.4 s, 283,000 fits/s; 2,370,000 core-seconds, 99% of them fitting; 2 bytes"
    )
