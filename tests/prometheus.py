"""Debian's Prometheus and its promtool: `make prometheus` puts them into .local/bin.

The package is unpacked, not installed: an installed one starts a server.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

__all__ = ["BIN", "require"]

BIN: Final = Path(__file__).resolve().parents[1] / ".local" / "bin"


def require() -> None:
    """Skip the test where promtool is missing, and say how to get it."""
    if not (BIN / "promtool").exists():
        import pytest

        pytest.skip(f"{BIN / 'promtool'} is missing: make prometheus")


def fetch() -> None:
    """Download the package by apt and unpack its programs."""
    BIN.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", "--quiet", "prometheus"], cwd=folder, check=True)
        (package,) = Path(folder).glob("prometheus_*.deb")
        subprocess.run(["dpkg", "-x", package, folder], check=True)
        for name in ("prometheus", "promtool"):
            shutil.move(Path(folder, "usr/bin", name), BIN / name)


if __name__ == "__main__":
    fetch()
