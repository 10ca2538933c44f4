"""The nodes of a Ray cluster, and those on which no actor starts."""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ray

from polyfit.errors import ClusterError, PolyfitError, StoreError
from polyfit.work.capacity import pause_s
from polyfit.work.progress import Message, OnMessage

__all__ = ["StartFailures", "address_of", "is_here", "live_nodes", "node_name"]

MAX_STARTS: Final = 4
"""Failed starts in a row after which a node that has never held an actor is given up."""

_MAX_NAMED: Final = 3

UNKNOWN: Final = ""
"""The address of a node that an error of Ray does not name."""


def live_nodes() -> list[dict[str, Any]]:
    """The cluster's live nodes, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def address_of(node_id: str) -> str:
    """A node's address; ``UNKNOWN`` if it is gone."""
    found = (node["NodeManagerAddress"] for node in live_nodes() if node["NodeID"] == node_id)
    return next(found, UNKNOWN)


def is_here(address: str) -> bool:
    """Whether it is the address of the node that this process is on."""
    return address_of(ray.get_runtime_context().get_node_id()) == address


def node_name(address: str) -> str:
    """A node's name for people."""
    hosts = {
        node["NodeManagerHostname"]
        for node in live_nodes()
        if node["NodeManagerAddress"] == address
    }
    host = f" ({', '.join(hosts)})" if hosts else ""
    return f"node {address}{host}" if address else "a node"


@dataclass(frozen=True, slots=True)
class StartFailure:
    """Why no actor starts on a node, and until when none is started there.

    Attributes:
        error: the last start's.
        lasting: whether it is of no use to try again.
        failures: how many starts have failed; those of several actors at once count as one.
        at: when the last one was noticed, by ``time.monotonic``.
        until: when an actor may be started there again.
    """

    error: PolyfitError
    lasting: bool
    failures: int
    at: float
    until: float


class StartFailures:
    """Where actors did not start, by the address of the node; each is reported once.

    Args:
        on_message: called with lines for the user.
    """

    def __init__(self, on_message: OnMessage) -> None:
        self._on_message = on_message
        self._failures: dict[str, StartFailure] = {}
        self._proven: set[str] = set()  # addresses of nodes that have held an actor
        self._reported: set[tuple[str, str]] = set()

    def note_start(self, address: str) -> None:
        """An actor has started at ``address``."""
        self._proven.add(address)
        for key in (address, UNKNOWN):
            self._failures.pop(key, None)
            self._reported.discard(("trying again", key))

    def note(self, address: str, error: PolyfitError, lasting: bool, started_at: float) -> bool:
        """No actor starts at ``address``, as one shows that was started at ``started_at``.

        False if that says nothing new: another one that was started with it has failed before.
        """
        known = self._failures.get(address)
        if known is not None and (known.lasting or started_at <= known.at) and not lasting:
            return False
        failures = known.failures + 1 if known is not None else 1
        lasting = lasting or (failures >= MAX_STARTS and address not in self._proven)
        present = time.monotonic()
        until = math.inf if lasting else present + pause_s(failures)
        self._failures[address] = StartFailure(error, lasting, failures, present, until)
        return True

    def report(self, address: str, elsewhere: bool) -> None:
        """Report the failure at ``address``; ``elsewhere``: other nodes have room."""
        if not self._failures[address].lasting:
            self._report("trying again", address)
        elif elsewhere:
            self._report("going on without it", address)

    def _report(self, what: str, address: str) -> None:
        if (what, address) not in self._reported:
            self._reported.add((what, address))
            line = f"{self.reason([address])}; {what}"
            self._on_message(Message(line, level="warning"))

    def avoided(self, node: dict[str, Any]) -> bool:
        """Whether no actor is to be started on a node now."""
        return bool(self._current((node["NodeManagerAddress"], UNKNOWN)))

    def ends_s(self) -> list[float]:
        """When the pauses end, by ``time.monotonic``."""
        present = time.monotonic()
        return [one.until for one in self._failures.values() if one.until > present]

    def raise_if_lasting(self, nodes: Iterable[dict[str, Any]]) -> None:
        """Raise if no actor will ever start on these nodes.

        Raises:
            ClusterError, StoreError: with every cause.
        """
        found = self._current({UNKNOWN, *(node["NodeManagerAddress"] for node in nodes)})
        if all(failure.lasting for failure in found.values()):
            of_store = all(isinstance(one.error, StoreError) for one in found.values())
            raise (StoreError if of_store else ClusterError)(self.reason(sorted(found)))

    def _current(self, addresses: Iterable[str]) -> dict[str, StartFailure]:
        found = ((address, self._failures.get(address)) for address in addresses)
        present = time.monotonic()
        return {address: one for address, one in found if one and one.until > present}

    def reason(self, addresses: Sequence[str] | None = None) -> str:
        """Why no actor starts at these addresses, or anywhere: one line for each cause."""
        names: dict[str, list[str]] = {}
        for address in sorted(self._failures) if addresses is None else addresses:
            cause = str(self._failures[address].error)
            names.setdefault(cause, []).append(node_name(address))
        return "\n".join(
            f"no actor starts on {_listed(nodes)}: {cause}" for cause, nodes in names.items()
        )


def _listed(names: list[str]) -> str:
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
