"""A pick: an instance for one call, and how that call went."""

from __future__ import annotations

from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from aioregistry._errors import UsageError
from aioregistry._model import ServiceInstance
from aioregistry._reprs import shown_half_made
from aioregistry.balancing import Load, Member

__all__ = ["CallReports", "Pick"]

P = TypeVar("P")


class CallReports(Protocol[P]):
    """The side of a balancer that is told how the calls of picks go."""

    errors: type[Exception] | tuple[type[Exception], ...]
    """Those that count against the instance where they leave the block of a pick."""

    def count(self, load: Load, calls: int) -> None:
        """So many *calls* more are under way at *load*."""

    def report(self, member: Member[P], good: bool, since: float, error: BaseException | None) -> None:
        """A call to *member* that began at *since* was good, or failed with *error*."""

    def dismiss(self, member: Member[P], since: float) -> None:
        """A call to *member* that began at *since* is over, and says nothing of it."""


@shown_half_made
class Pick(Generic[P]):
    """An instance that was picked, for one call to it.

    As a context manager around the call it counts the call as outstanding, and reports how it went: good if the block
    ends, failed if one of the ejection's ``errors`` leaves it. Any other exception, and cancellation, does not count
    for or against the instance. The first report counts, so the block can report by itself (an answer that is an error,
    say).

    Attributes:
        instance: the instance, as the view knew it when it was picked.
    """

    __slots__ = ("_entered", "_load", "_member", "_reports", "_since", "_told", "instance")

    def __init__(self, reports: CallReports[P], member: Member[P], since: float) -> None:
        self.instance: ServiceInstance[P] = member.instance
        self._reports = reports
        self._member = member
        self._load = member.load  # the address that serves the call, wherever the instance moves meanwhile
        self._since = since
        self._told = False
        self._entered = False

    @property
    def id(self) -> str:
        """The instance's id."""
        return self.instance.id

    def succeeded(self) -> None:
        """Report that the call was good."""
        self._tell(True)

    def failed(self, error: BaseException | None = None) -> None:
        """Report that the instance failed, with *error* if there is one.

        Where the instance is a suspect, a refused connection among the causes of *error* counts against it.
        """
        self._tell(False, error)

    def abandoned(self) -> None:
        """Report that the call is over, and that how it went says nothing about the instance."""
        if not self._told:
            self._told = True
            self._reports.dismiss(self._member, self._since)

    def _tell(self, good: bool, error: BaseException | None = None) -> None:
        if not self._told:
            self._told = True
            self._reports.report(self._member, good, self._since, error)

    def __enter__(self) -> Self:
        if self._entered:
            raise UsageError(f"{self!r} is entered once: pick again for another call")
        self._entered = True
        self._reports.count(self._load, 1)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._reports.count(self._load, -1)
        if error is None:
            self.succeeded()
        elif isinstance(error, self._reports.errors):
            self.failed(error)
        else:
            self.abandoned()

    def __repr__(self) -> str:
        return f"<Pick {self.instance.name}/{self.id}>"
