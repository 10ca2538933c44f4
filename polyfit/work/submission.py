"""A job for a Ray cluster: what is sent there, and under which name.

Sent are the specs, a few options, the variables that the specs' stores name, and ``job_start``.
All of it can be read by everybody who reaches the cluster, so no credential is among it.
"""

import getpass
import hashlib
import json
import os
import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date as Date
from pathlib import Path
from typing import Final

from polyfit.errors import UsageError
from polyfit.run.address import STORE_VARIABLE, is_dated, run_address
from polyfit.spec.dates import read_date
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec
from polyfit.store.address import StoreAddress
from polyfit.store.credentials import credentials_here, find_credential
from polyfit.store.uri import is_s3
from polyfit.work import job_start

__all__ = ["Submission"]

STOP_WAIT_S: Final = 40
"""Seconds from SIGTERM to SIGKILL when the job is stopped: its shards need up to 25."""

_START: Final = "start_polyfit.py"


@dataclass(frozen=True, slots=True)
class Submission:
    """Specs that a Ray job runs, one after the other.

    Attributes:
        files: the text of each spec, by the name of its file there.
        plans: of the specs.
        runs: where each of them is stored, as seen from here.
        arguments: options of ``polyfit run`` there.
        python: the Python there.
        environment: variables that are set there.
    """

    files: dict[str, str]
    plans: tuple[Plan, ...]
    runs: tuple[StoreAddress, ...]
    arguments: tuple[str, ...]
    python: str
    environment: dict[str, str]

    @classmethod
    def of(
        cls,
        specs: Sequence[Spec],
        store: str | None,
        endpoint_url: str | None,
        run_id: str | None,
        date: str | None,
        reuse: str | None,
        options: Sequence[str],
        python: str,
    ) -> "Submission":
        """The job that runs ``specs`` with other ``options`` of ``polyfit run``.

        The date is that of the submission, whenever the job begins.

        Raises:
            UsageError: a credential would be sent, or a store does not outlive the job.
        """
        plans = tuple(map(Plan.of, specs))
        pairs = zip(specs, plans, strict=True)
        day = read_date(date)
        runs = tuple(run_address(*pair, store, endpoint_url, run_id, day) for pair in pairs)
        for spec, run in zip(specs, runs, strict=True):
            _check_outlives(spec, store, run)
        words = {
            "--store": store,
            "--endpoint-url": endpoint_url,
            "--run-id": run_id,
            "--date": str(day) if any(is_dated(spec, store, run_id) for spec in specs) else date,
            "--reuse": None if reuse is None else _reused(reuse, store, endpoint_url, day),
        }
        given = [word for name, text in words.items() if text is not None for word in (name, text)]
        sent = [
            _less_overridden(spec, run, store, endpoint_url)
            for spec, run in zip(specs, runs, strict=True)
        ]
        environment = _environment(sent, store)
        made = cls(_files(sent), plans, runs, (*given, *options), python, environment)
        made._check_no_credential(sent)
        return made

    @property
    def name(self) -> str:
        """Of the specs, and of the run or of all runs; the beginning of the job's id."""
        first, *others = self.runs
        name, run_id = first.uri.rsplit("/", 2)[1:]
        if not others:
            return f"{name}-{run_id}"
        digest = hashlib.sha256(self.run_uris.encode()).hexdigest()
        return f"{name}-and-{len(others)}-more-{digest[:12]}"

    @property
    def run_uris(self) -> str:
        """The runs, by which the job is found again."""
        return " ".join(run.uri for run in self.runs)

    @property
    def metadata(self) -> dict[str, str]:
        """What Ray and its dashboard say of the job."""
        return {"job_name": f"polyfit {self.name}", "run": self.run_uris, "owner": _owner()}

    @property
    def entrypoint(self) -> str:
        """The command line there; ``exec``, so that the exit code is the run's own."""
        return f"exec {shlex.join([self.python, _START, 'run', *self.files, *self.arguments])}"

    def write(self, folder: Path) -> None:
        """Write what the job finds in its working folder."""
        for name, text in self.files.items():
            (folder / name).write_text(text, encoding="utf-8")
        hashes = dict(zip(self.files, (plan.hash for plan in self.plans), strict=True))
        asked = {"versions": job_start.versions(), "plans": hashes}
        (folder / job_start.ASKED).write_text(json.dumps(asked), encoding="utf-8")
        (folder / _START).write_bytes(Path(job_start.__file__).read_bytes())

    def _check_no_credential(self, specs: Sequence[Spec]) -> None:
        known = credentials_here()
        texts = [(spec.source, spec.text) for spec in specs]
        texts += [("the command line", word) for word in (self.python, *self.arguments)]
        texts += [(f"the variable {name}", value) for name, value in self.environment.items()]
        texts += [("the job's metadata", value) for value in self.metadata.values()]
        for where, text in texts:
            if found := find_credential(text, known):
                what, line = found
                place = f"{where}:{line}" if text.count("\n") else where
                raise UsageError(
                    f"{place} holds {what}, and nothing was sent: everybody who reaches the "
                    "cluster can read its jobs. boto3's own chain finds credentials on each node"
                )


def _files(specs: Sequence[Spec]) -> dict[str, str]:
    """The text of each spec under a name of its own."""
    files: dict[str, str] = {}
    for spec in specs:
        names = (f"{spec.name}{f'-{n}' if n else ''}.yaml" for n in range(len(specs) ** 2 + 1))
        files[next(name for name in names if name not in files)] = spec.text
    return files


def _less_overridden(
    spec: Spec, run: StoreAddress, store: str | None, endpoint_url: str | None
) -> Spec:
    """``spec``, whose store names no variables where ``store`` and ``endpoint_url`` count.

    With them, who reads it there would need them.
    """
    if not spec.store_variables or (store is None and endpoint_url is None):
        return spec
    if store is None:
        settings = {"store.endpoint_url": endpoint_url}
    elif is_s3(run.uri):
        settings = {"store.uri": store, "store.endpoint_url": endpoint_url}
    else:  # a folder takes no other keys
        settings = {"store": store}
    words = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    return Spec.parse(spec.text, spec.source, words)


def _environment(specs: Sequence[Spec], store: str | None) -> dict[str, str]:
    """Time to stop, and the variables of this environment from which the stores follow."""
    names = {name for spec in specs for name in spec.store_variables}
    if store is None and not all(spec.store for spec in specs):
        names.add(STORE_VARIABLE)
    here = {name: os.environ[name] for name in sorted(names) if os.environ.get(name)}
    return {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), **here}


def _check_outlives(spec: Spec, store: str | None, run: StoreAddress) -> None:
    """Check that the store of ``run`` is named, and may be the same seen from the cluster.

    Raises:
        UsageError: it is not.
    """
    named = store or (spec.store.uri if spec.store else os.environ.get(STORE_VARIABLE))
    if not named or not (is_s3(run.uri) or os.path.isabs(named)):
        found = f"{named!r} is a folder of this machine" if named else "none is named"
        raise UsageError(
            f"{spec.source}: a Ray job needs a store that outlives it, and {found}; allowed: "
            "s3://bucket/prefix, or the absolute path of a folder that all nodes share, in the "
            "spec or with --store"
        )


def _reused(reuse: str, store: str | None, endpoint_url: str | None, day: Date) -> str:
    """The run to take rows from, in a form that means the same there."""
    if os.path.isdir(reuse):
        return os.path.abspath(reuse)
    if not os.path.isfile(reuse):
        return reuse
    spec = Spec.load(reuse)
    return run_address(spec, Plan.of(spec), store, endpoint_url, date=day).uri


def _owner() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # no name for this user id, as in a container
        return socket.gethostname()
