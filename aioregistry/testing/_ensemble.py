"""An embedded ensemble for tests, by the same face as the servers: from any thread, done when it returns."""

from __future__ import annotations

from typing import Any, Self

from aioregistry.server import Ensemble, Member

from ._network import on_network, run_on_network
from ._servers import QUICK, Data

__all__ = ["EnsembleMember", "ZooKeeperEnsemble"]


class EnsembleMember:
    """One server of an embedded ensemble; its controls may be called from any thread."""

    def __init__(self, member: Member) -> None:
        self.member = member

    @property
    def address(self) -> str:
        """``host:port``."""
        return self.member.address

    @property
    def leads(self) -> bool:
        """Whether it is the leader."""
        return self.member.mode == "leader"

    def lag(self, seconds: float) -> None:
        """Let it see transactions so much later, from now on; 0 for at once.

        Args:
            seconds: how much later, in seconds; 0 for at once.
        """
        on_network(lambda: self.member.lag(seconds))

    def cut_off(self) -> None:
        """Cut it off from the others: it goes on answering pings and stale reads, as a real one does for a while."""
        on_network(self.member.cut_off)

    def heal(self) -> None:
        """Undo :meth:`cut_off`."""
        on_network(self.member.heal)

    def drop(self, session_id: int | None = None) -> None:
        """End the connections of a session, or all, without a word.

        Args:
            session_id: as ``registry.session.id`` has it; None for all.
        """
        on_network(lambda: self.member.drop(session_id))

    def freeze(self, session_id: int | None = None) -> None:
        """Let the connections of a session, or all that are there, stand still until :meth:`thaw`.

        Args:
            session_id: as ``registry.session.id`` has it; None for all.
        """
        on_network(lambda: self.member.freeze(session_id))

    def thaw(self) -> None:
        """Let every frozen connection go on."""
        on_network(self.member.thaw)

    def refuse_connections(self, refuse: bool = True) -> None:
        """Refuse new connections, or take them again.

        Args:
            refuse: False takes them again.
        """
        on_network(lambda: self.member.refuse_connections(refuse))

    def stop(self) -> None:
        """Go down, as by SIGKILL; the others elect a leader if it led."""
        run_on_network(self.member.stop())

    def start(self) -> None:
        """Come back, with the transactions that were committed meanwhile."""
        run_on_network(self.member.start())

    def __repr__(self) -> str:
        return repr(self.member)


class ZooKeeperEnsemble:
    """An embedded ensemble of a test's own; a context manager, running from the beginning.

    Args:
        size: how many members.
        options: of :class:`aioregistry.server.Ensemble`, with the defaults of :class:`ZooKeeper`.

    Raises:
        InvalidArgument: an option is out of its range.
    """

    def __init__(self, size: int = 3, **options: Any) -> None:
        self.ensemble: Ensemble = Ensemble(size, **QUICK | options)
        self.members: list[EnsembleMember] = [EnsembleMember(member) for member in self.ensemble.members]
        run_on_network(self.ensemble.start())

    @property
    def connect_string(self) -> str:
        """The addresses of all members, as clients take them."""
        return self.ensemble.connect_string

    @property
    def leader(self) -> EnsembleMember:
        """The member that leads; UsageError when no member leads."""
        return self._member(on_network(lambda: self.ensemble.leader))

    @property
    def followers(self) -> list[EnsembleMember]:
        """The running members that do not lead."""
        return [self._member(member) for member in on_network(lambda: self.ensemble.followers)]

    def change_leader(self, to: EnsembleMember | None = None) -> None:
        """Have another member lead: every connection ends, all sessions' timers start again.

        Args:
            to: the member that is to lead; None for any other that can.
        """
        on_network(lambda: self.ensemble.change_leader(None if to is None else to.member))

    def expire(self, session_id: int) -> None:
        """End a session as if its client had been silent for the session timeout.

        Args:
            session_id: as ``registry.session.id`` has it.
        """
        on_network(lambda: self.ensemble.expire(session_id))

    def stop(self) -> None:
        """Let all members go down; data and sessions are kept for the next start."""
        run_on_network(self.ensemble.stop())

    def start(self, data: Data = "kept") -> None:
        """Start all members on their ports; *data* as of :meth:`ZooKeeper.start`."""
        run_on_network(self.ensemble.start(data))

    def close(self) -> None:
        """Go down for good, and give the ports back."""
        run_on_network(self.ensemble.__aexit__(None, None, None))

    def _member(self, member: Member) -> EnsembleMember:
        return next(each for each in self.members if each.member is member)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ZooKeeperEnsemble {self.connect_string}>"
