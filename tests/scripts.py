"""Programs that a test writes: stand-ins, found by PATH."""

from pathlib import Path

__all__ = ["executable"]


def executable(path: Path, content: str) -> None:
    """Write a script that can be run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    path.chmod(0o755)
