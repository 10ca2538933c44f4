"""Debian's headless Chromium, for tests of pages."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, sync_playwright

__all__ = ["chromium"]

EXECUTABLE: Final = Path("/usr/bin/chromium")
FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; where none is installed the test is skipped, and says how to get one."""
    if not EXECUTABLE.exists():
        pytest.skip(f"{EXECUTABLE} is missing: apt-get install -y chromium")
    # Debian's script around the browser reads the home folder's settings; none are ours.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=EXECUTABLE, args=[*FLAGS], env={**os.environ}
        )
        try:
            yield browser
        finally:
            browser.close()
