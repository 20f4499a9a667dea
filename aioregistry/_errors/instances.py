"""The errors of registrations and of instances."""

from __future__ import annotations

from collections.abc import Mapping

from aioregistry import _foreign as foreign

from .calls import RegistryError
from .sessions import session_name, with_attempts

__all__ = [
    "InvalidInstance",
    "NoInstances",
    "NodeNotEphemeral",
    "RegistrationConflict",
    "RegistrationDisplaced",
    "RegistrationError",
]


class RegistrationError(RegistryError):
    """A registration ended for good; ``path`` is its node.

    ``attempts`` maps each address to its answer, in words, if there was no connection then; else it is empty.
    """

    def __init__(self, path: str, message: str) -> None:
        super().__init__(path, message)
        self.path = path
        self.message = message
        self.attempts: Mapping[str, str] = {}

    def __str__(self) -> str:
        return with_attempts(f"{self.path}: {self.message}", self.attempts)


class RegistrationDisplaced(RegistrationError):
    """A newer claimant took the id; ``owner`` is its session."""

    def __init__(self, path: str, owner: int) -> None:
        super().__init__(path, f"displaced by session {session_name(owner)}, which claimed this id later")
        self.owner = owner


class RegistrationConflict(RegistrationError):
    """``on_conflict="fail"`` and the id is taken by another session: a live owner, or a ghost within its timeout."""

    def __init__(self, path: str, owner: int) -> None:
        super().__init__(
            path,
            f"already held by session {session_name(owner)} (a live owner, or a ghost until its session times out)",
        )
        self.owner = owner


class NodeNotEphemeral(RegistrationError):
    """A node that no session owns is in the way; it is left alone, because a person or another program made it."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "a node that is not ephemeral is in the way; remove it, or register another id")


class InvalidInstance(RegistryError, ValueError):
    """A node's data is not a service instance; ``reason`` says why, on one line without control characters.

    A client that may write the node chose the texts in it, the names of fields among them.
    """

    def __init__(self, reason: str) -> None:
        reason = foreign.printable(reason)
        super().__init__(reason)
        self.reason = reason


class NoInstances(RegistryError, LookupError):
    """There is no instance to pick, and why.

    ``counts`` has the number of each kind that is not picked: ``"disabled"``, ``"failing"`` (its own checks fail, and
    there is no panic), ``"out of service"`` (by Spring Cloud's ``instance_status``), ``"filtered out"``, ``"refused"``
    (its weight is unfit, say), ``"of weight 0"``, ``"suspect"`` (not listed any more, and the balancer does not pick
    suspects), ``"set aside"`` (it failed; or it is back, and a call probes it), ``"excluded"`` (from this pick, by its
    caller). ``reason`` is the single cause if all instances share one, ``"empty"`` if the service has no instance,
    otherwise ``"mixed"``. ``returns_in`` is the seconds until the first instance that is set aside may be picked again,
    None if no instance is.
    """

    def __init__(self, service: str, counts: Mapping[str, int], returns_in: float | None = None) -> None:
        super().__init__(service, dict(counts), returns_in)
        self.service = service
        self.counts: dict[str, int] = dict(counts)
        self.returns_in = returns_in

    @property
    def reason(self) -> str:
        """Why, in a word or two."""
        return "mixed" if len(self.counts) > 1 else next(iter(self.counts), "empty")

    def __str__(self) -> str:
        total = sum(self.counts.values())
        everybody = f"all {total} are" if total > 1 else "the only one is"
        kinds = ", ".join(f"{number} are {kind}" for kind, number in self.counts.items())
        why = {"empty": "the service is empty", "mixed": f"of {total} instances {kinds}"}
        shown = why.get(self.reason, f"{everybody} {self.reason}")
        first = "" if self.returns_in is None else f", the first for {max(self.returns_in, 0):.1f} s"
        return f"no instance of {self.service!r} can be picked: {shown}{first}"
