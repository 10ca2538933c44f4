"""A job for a Ray cluster: what is sent there, and under which name.

Sent are the specs, a few options, the variables that the specs' stores name, and ``job_start``.
All of it can be read by everybody who reaches the cluster, so no credential is among it.
"""

import getpass
import hashlib
import json
import os
import secrets
import shlex
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date as Date
from pathlib import Path
from typing import Final

from polyfit.errors import UsageError
from polyfit.run.address import is_dated, run_address
from polyfit.spec.dates import read_date
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec
from polyfit.store.address import StoreAddress
from polyfit.store.credentials import credentials_here, find_credential
from polyfit.work import job_start
from polyfit.work.job_store import (
    check_outlives,
    environment_of,
    less_overridden,
    named_endpoint,
)

__all__ = ["Job", "Submission"]

_START: Final = "start_polyfit.py"


@dataclass(frozen=True, slots=True)
class Job:
    """A job of a cluster: its id there, and the ``nonce`` of its submission.

    Another cluster at the same address may have a job of the same id.
    """

    id: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Submission:
    """Specs that a Ray job runs, one after the other.

    Attributes:
        files: the text of each spec, by the name of its file there.
        plans: of the specs.
        runs: where each of them is stored, as seen from here.
        endpoints: the S3 endpoint that is named for each; "" if the nodes' own counts.
        arguments: options of ``polyfit run`` there.
        python: the Python there.
        environment: variables that are set there.
        nonce: of this submission alone.
    """

    files: dict[str, str]
    plans: tuple[Plan, ...]
    runs: tuple[StoreAddress, ...]
    endpoints: tuple[str, ...]
    arguments: tuple[str, ...]
    python: str
    environment: dict[str, str]
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))

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
            check_outlives(spec, store, run)
        words = {
            "--store": store,
            "--endpoint-url": endpoint_url,
            "--run-id": run_id,
            "--date": str(day) if any(is_dated(spec, store, run_id) for spec in specs) else date,
            "--reuse": None if reuse is None else _reused(reuse, store, endpoint_url, day),
        }
        given = [word for name, text in words.items() if text is not None for word in (name, text)]
        sent = [
            less_overridden(spec, run, store, endpoint_url)
            for spec, run in zip(specs, runs, strict=True)
        ]
        environment = environment_of(sent, store)
        endpoints = tuple(named_endpoint(spec, store, endpoint_url) for spec in specs)
        arguments = (*given, *options)
        made = cls(_files(sent), plans, runs, endpoints, arguments, python, environment)
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
        return {
            "job_name": f"polyfit {self.name}",
            "run": self.run_uris,
            "owner": _owner(),
            "plan": " ".join(plan.hash for plan in self.plans),
            "endpoint": " ".join(self.endpoints).strip(),
            "sent": self._digest(),
            "nonce": self.nonce,
        }

    def check_same(self, job: str, metadata: Mapping[str, str]) -> bool:
        """Check that a job with the same runs does the same: its plans, at the same endpoint.

        Returns:
            Whether all else that was sent is the same too.

        Raises:
            UsageError: it does not.
        """
        ours = self.metadata
        for key in ("plan", "endpoint"):
            found = metadata.get(key, "unknown")
            if found != ours[key]:
                there, here = (_shown(key, text) for text in (found, ours[key]))
                raise UsageError(
                    f"the job {job}, submitted by {metadata.get('owner', 'somebody')} for the same "
                    f"run, has another {key}: {there}, and here it is {here}; allowed: what that "
                    "one was submitted with, or another run id or store"
                )
        return metadata.get("sent") == ours["sent"]

    def _digest(self) -> str:
        """Of all that is sent."""
        sent = [self.files, self.arguments, self.python, self.environment]
        return hashlib.sha256(json.dumps(sent).encode()).hexdigest()[:16]

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


def _reused(reuse: str, store: str | None, endpoint_url: str | None, day: Date) -> str:
    """The run to take rows from, in a form that means the same there."""
    if os.path.isdir(reuse):
        return os.path.abspath(reuse)
    if not os.path.isfile(reuse):
        return reuse
    spec = Spec.load(reuse)
    return run_address(spec, Plan.of(spec), store, endpoint_url, date=day).uri


def _shown(key: str, text: str) -> str:
    """Hashes of plans as they are shown everywhere; an endpoint that is named nowhere."""
    if key == "plan":
        return " ".join(word[:12] for word in text.split())
    return text or "that of the cluster's nodes"


def _owner() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # no name for this user id, as in a container
        return socket.gethostname()
