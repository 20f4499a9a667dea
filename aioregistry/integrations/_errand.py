"""One request of a client, in the words of its framework, and what an error says about the instance. Pure."""

from __future__ import annotations

import enum
from typing import Protocol, TypeVar

from aioregistry import RegistryError
from aioregistry._errors import InvalidArgument

from ._hosts import Upstream

__all__ = ["Errand", "ErrorClass"]

R = TypeVar("R")


class ErrorClass(enum.Enum):
    """The meaning of an error for the instance and the request."""

    UNSENT = "it could not be reached: the request is as if it had never been made"
    UNASKED = "its proxy could not be reached: nothing is said about it, and the request is as if never made"
    BROKEN = "it failed before it answered: it may have done its work"
    FAILED = "it failed, and another would not help"
    INNOCENT = "the error is not about the instance"


class Errand(Protocol[R]):
    """One request, in the words of one framework."""

    method: str
    scheme: str
    host: str
    port: int | None
    key: str | bytes | None

    async def attempt(self, upstream: Upstream, attempts_left: int) -> R:
        """Send it to *upstream* and return the response as soon as there is one; *attempts_left* counts this one."""

    def judge(self, error: Exception) -> ErrorClass:
        """The meaning of an error of `attempt`."""

    def overdue(self) -> bool:
        """Whether a cancellation is that of the request's own deadline, not one from outside."""

    def status(self, response: R) -> int:
        """The status of the response."""

    async def discard(self, response: R) -> None:
        """Let go of a response that is not the one."""

    def replayable(self) -> bool:
        """Whether the body can be sent, again if it was sent in part."""

    def patience(self) -> float | None:
        """Seconds that finding an instance may take; None: not given."""

    def refused(self, error: InvalidArgument) -> Exception:
        """The framework's error for a URL that is unusable."""

    def unreachable(self, error: RegistryError) -> Exception:
        """The framework's error for a host that does not lead anywhere."""
