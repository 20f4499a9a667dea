"""The metrics, with their names and units. Pure.

Names and units are those of OpenTelemetry's semantic conventions: nouns with dots, seconds as ``s``, counts in braces.
Labels have few values: services, states, outcomes, names of checks; never an id of an instance or of a session.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple

from aioregistry import events

__all__ = ["METRICS", "Bucket", "Counters", "Kind", "Labels", "Metric", "Sample"]

Labels = tuple[str, ...]


class Kind(enum.Enum):
    """The kinds of metrics."""

    GAUGE = "gauge"
    """They rise and fall."""
    COUNTER = "counter"
    """They only grow, until the process ends."""
    HISTOGRAM = "histogram"
    """They are distributed over buckets, which only grow."""


class Metric(NamedTuple):
    """A kind of measurement.

    Args:
        kind: what its values are.
        unit: as UCUM writes it.
        labels: their names.
        help: in a sentence.
    """

    kind: Kind
    unit: str
    labels: tuple[str, ...]
    help: str


class Bucket(NamedTuple):
    """The values of a histogram between two bounds: how many they are, and their sum."""

    values: int
    total: float


class Sample(NamedTuple):
    """A value of a metric, with the values of its labels; of a histogram the sum, with its buckets."""

    metric: str
    labels: Labels
    value: float
    buckets: tuple[Bucket, ...] = ()


METRICS: Final[Mapping[str, Metric]] = MappingProxyType(
    {
        "aioregistry.up": Metric(Kind.GAUGE, "1", (), "1 where the registry's event loop answered the reader in time."),
        "aioregistry.session.state": Metric(Kind.GAUGE, "1", ("state",), "1 for the state that the session is in."),
        "aioregistry.session.timeout": Metric(Kind.GAUGE, "s", (), "The session timeout that was granted."),
        "aioregistry.session.evidence.age": Metric(Kind.GAUGE, "s", (), "How long ago the quorum gave a sign of life."),
        "aioregistry.session.addresses": Metric(
            Kind.GAUGE,
            "{address}",
            ("outcome",),
            "Addresses by how the last attempt to connect ended, of the last outage.",
        ),
        "aioregistry.session.attempts": Metric(
            Kind.COUNTER, "{attempt}", ("outcome",), "Attempts to connect that have ended, by how they ended."
        ),
        "aioregistry.session.connections": Metric(
            Kind.COUNTER, "{connection}", (), "Connections that servers accepted."
        ),
        "aioregistry.session.expirations": Metric(Kind.COUNTER, "{session}", (), "Sessions that the ensemble ended."),
        "aioregistry.session.outages": Metric(
            Kind.COUNTER, "{outage}", (), "Outages that lasted long enough to be reported."
        ),
        "aioregistry.session.rollbacks": Metric(Kind.COUNTER, "{rollback}", (), "Histories that the ensemble lost."),
        "aioregistry.session.stalls": Metric(
            Kind.COUNTER, "{stall}", (), "Times that the event loop was blocked for long."
        ),
        "aioregistry.session.stall.time": Metric(Kind.COUNTER, "s", (), "How long it was blocked, together."),
        "aioregistry.session.poison": Metric(Kind.COUNTER, "{request}", (), "Requests that cost the connection."),
        "aioregistry.request.duration": Metric(
            Kind.HISTOGRAM, "s", ("operation",), "From the sending of a request to its answer."
        ),
        "aioregistry.registrations": Metric(
            Kind.GAUGE, "{registration}", ("service", "status"), "Registrations by their status."
        ),
        "aioregistry.registration.takeovers": Metric(
            Kind.COUNTER, "{takeover}", (), "Nodes of ghosts that were taken over."
        ),
        "aioregistry.registration.displacements": Metric(
            Kind.COUNTER, "{displacement}", (), "Times that a newer claimant took an id."
        ),
        "aioregistry.check.failures": Metric(
            Kind.COUNTER, "{failure}", ("check",), "Times that a check began to fail."
        ),
        "aioregistry.instances": Metric(
            Kind.GAUGE, "{instance}", ("service", "kind"), "Instances that a view shows: confirmed, suspect, invalid."
        ),
        "aioregistry.instances.enabled": Metric(Kind.GAUGE, "{instance}", ("service",), "Instances that are enabled."),
        "aioregistry.view.fresh": Metric(Kind.GAUGE, "1", ("service",), "1 while the view is known to be up to date."),
        "aioregistry.view.syncs": Metric(
            Kind.COUNTER, "{sync}", ("service",), "Times that a service was read completely."
        ),
        "aioregistry.view.holds": Metric(Kind.COUNTER, "{instance}", ("service",), "Removals that a guard held back."),
        "aioregistry.view.missed": Metric(Kind.COUNTER, "{node}", ("service",), "Nodes that changed without an event."),
        "aioregistry.balancer.picks": Metric(
            Kind.COUNTER, "{pick}", ("service",), "Instances that balancers returned."
        ),
        "aioregistry.balancer.failures": Metric(
            Kind.COUNTER, "{call}", ("service",), "Calls that were reported as failed."
        ),
        "aioregistry.balancer.ejections": Metric(
            Kind.COUNTER, "{instance}", ("service",), "Instances set aside for failing."
        ),
        "aioregistry.balancer.panics": Metric(
            Kind.COUNTER, "{panic}", ("service",), "Times that a balancer began to panic."
        ),
    }
)
"""Everything that is measured, by name."""


@dataclass
class Counters:
    """Counts events, from when it is asked to listen.

    Args:
        values: by metric and labels.
    """

    values: dict[tuple[str, Labels], float] = field(default_factory=dict)

    def told(self, name: str, fields: dict[str, object]) -> None:
        """Count an event, where one counts."""
        count = _COUNTED.get(name)
        if count is not None:
            for sample in count(events.event_of(name, fields)):
                key = sample.metric, sample.labels
                self.values[key] = self.values.get(key, 0.0) + sample.value

    def samples(self, begun: Iterable[tuple[str, Labels]] = ()) -> list[Sample]:
        """Return the counts; a counter without labels is 0 before its first event, so that its growth can be seen.

        Args:
            begun: the counters with labels that are 0 before their first event, too.
        """
        plain = dict.fromkeys(begun, 0.0) | {
            (name, ()): 0.0 for name, metric in METRICS.items() if metric.kind is Kind.COUNTER and not metric.labels
        }
        return [Sample(metric, labels, value) for (metric, labels), value in (plain | self.values).items()]


def _state(event: events.Event) -> list[Sample]:
    assert isinstance(event, events.SessionMoved)
    return [Sample("aioregistry.session.expirations", (), 1.0)] if event.state == "expired" else []


def _stall(event: events.Event) -> list[Sample]:
    assert isinstance(event, events.SessionStall)
    return [
        Sample("aioregistry.session.stalls", (), 1.0),
        Sample("aioregistry.session.stall.time", (), event.seconds),
    ]


def _status(event: events.Event) -> list[Sample]:
    assert isinstance(event, events.RegistrationStatus)
    return [Sample("aioregistry.registration.displacements", (), 1.0)] if event.status == "displaced" else []


def _check(event: events.Event) -> list[Sample]:
    assert isinstance(event, events.CheckChanged)
    return [Sample("aioregistry.check.failures", (event.check,), 1.0)] if event.state == "failing" else []


def _missed(event: events.Event) -> list[Sample]:
    assert isinstance(event, events.NodesMissed)
    return [Sample("aioregistry.view.missed", (event.service,), float(len(event.ids)))]


def _once(metric: str) -> Callable[[events.Event], list[Sample]]:
    return lambda event: [Sample(metric, _service(event) if METRICS[metric].labels else (), 1.0)]


def _service(event: events.Event) -> Labels:
    return (str(getattr(event, "service", "")),)


_COUNTED: Final[Mapping[str, Callable[[events.Event], list[Sample]]]] = MappingProxyType(
    {
        "session.state": _state,
        "session.stall": _stall,
        "session.outage": _once("aioregistry.session.outages"),
        "session.rollback": _once("aioregistry.session.rollbacks"),
        "session.poison": _once("aioregistry.session.poison"),
        "registration.status": _status,
        "registration.takeover": _once("aioregistry.registration.takeovers"),
        "health.check": _check,
        "discovery.synced": _once("aioregistry.view.syncs"),
        "discovery.held": _once("aioregistry.view.holds"),
        "discovery.missed": _missed,
    }
)
