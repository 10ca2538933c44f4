"""What a run has taken, for ``polyfit status`` and the report."""

from collections.abc import Mapping

from polyfit.run.run_receipt import RunReceipt
from polyfit.show.text import format_count, format_duration, three_digits

__all__ = ["receipt_pairs"]

SHOWN_HOSTS = 5


def receipt_pairs(receipt: RunReceipt) -> list[tuple[str, str]]:
    """Names and values; none where no attempt has noted anything."""
    if not receipt.seconds:
        return []
    tries = format_count(receipt.attempts, "attempt")
    if receipt.attempts_unknown:
        tries += f", {receipt.attempts_unknown:,} of them without a note"
    rate = f", {three_digits(receipt.fits_per_s)} fits a second" if receipt.fits_per_s else ""
    pairs = [
        ("took", f"{format_duration(receipt.seconds)} in {tries}{rate}"),
        ("cores", _spent(receipt.core_seconds, "core")),
        ("GPUs", _spent(receipt.gpu_seconds, "GPU")),
        ("retries", ", ".join(f"{number:,} {cause}" for cause, number in receipt.retries.items())),
        ("hosts", _hosts(receipt.hosts)),
    ]
    return [(name, value) for name, value in pairs if value]


def _spent(seconds: Mapping[str, float], what: str) -> str:
    total = sum(seconds.values())
    if not total:
        return ""
    largest = sorted(seconds.items(), key=lambda item: -item[1])
    shares = ", ".join(f"{spent / total:.0%} {name}" for name, spent in largest if spent)
    hours = f" ({total / 3600:,.1f} {what}-hours)" if total >= 3600 else ""
    return f"{three_digits(total)} {what}-seconds{hours}: {shares}"


def _hosts(hosts: list[str]) -> str:
    more = len(hosts) - SHOWN_HOSTS
    return ", ".join(hosts[:SHOWN_HOSTS]) + (f" and {more:,} more" if more > 0 else "")
