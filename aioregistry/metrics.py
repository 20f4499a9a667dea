"""Metrics of a registry, for Prometheus and for OpenTelemetry; each is read when it is asked for.

Nothing is done per change of a service: gauges are read from the registry when somebody reads, and counters count the
events of ``on_event``, which are few. Reading takes place on the registry's event loop, from whichever thread it is
asked; where that loop does not answer within two seconds, ``aioregistry.up`` is 0 and nothing else is said.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from ._extras import needs
from ._metrics.reader import RegistryReader
from ._metrics.table import METRICS, Sample
from ._registry import Registry
from ._threads import ThreadRegistry

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector

__all__ = ["opentelemetry", "prometheus"]

_ONE_READING: Final = 0.5
"""Seconds: OpenTelemetry asks for each instrument by itself, and all are to be of one moment."""


def prometheus(registry: Registry | ThreadRegistry, *, to: CollectorRegistry | None = None) -> Collector:
    """Return a collector of *registry*'s metrics that reads when it is scraped. Needs the extra ``prometheus``.

    Names are Prometheus's: ``aioregistry_session_expirations_total``, ``aioregistry_session_evidence_age_seconds``.

    Args:
        registry: entered or not; counters begin now.
        to: registered with this prometheus_client registry; with no registry unless given.

    Raises:
        InvalidArgument: *registry* is no registry.
        ModuleNotFoundError: the extra is missing.
    """
    try:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
        from prometheus_client.registry import Collector
    except ModuleNotFoundError as missing:
        raise _without_extra("prometheus", missing) from missing
    reader = RegistryReader(registry)

    class RegistryCollector(Collector):
        """Reads when it is scraped."""

        def describe(self) -> Iterable[Metric]:
            """Say nothing: registering must not read."""
            return []

        def collect(self) -> Iterator[Metric]:
            """Read, and yield one family after the other."""
            samples = _by_metric(reader.read())
            for name, metric in METRICS.items():
                if name not in samples:
                    continue
                kind = CounterMetricFamily if metric.counts else GaugeMetricFamily
                family = kind(_prometheus_name(name), metric.help, labels=metric.labels)
                for sample in samples[name]:
                    family.add_metric(sample.labels, sample.value)
                yield family

    collector = RegistryCollector()
    if to is not None:
        to.register(collector)
    return collector


def opentelemetry(registry: Registry | ThreadRegistry, *, meter: Meter | None = None) -> None:
    """Observe *registry*'s metrics by instruments that read when they are exported. Needs the extra ``opentelemetry``.

    Args:
        registry: entered or not; counters begin now.
        meter: makes the instruments; that of the global meter provider for ``aioregistry`` unless given.

    Raises:
        InvalidArgument: *registry* is no registry.
        ModuleNotFoundError: the extra is missing.
    """
    try:
        from opentelemetry.metrics import Observation, get_meter
    except ModuleNotFoundError as missing:
        raise _without_extra("opentelemetry", missing) from missing
    reader = _Remembered(RegistryReader(registry))
    meter = get_meter("aioregistry") if meter is None else meter

    def observing(name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        labels = METRICS[name].labels

        def observe(_: CallbackOptions) -> Iterator[Observation]:
            for sample in reader.read().get(name, ()):
                yield Observation(sample.value, dict(zip(labels, sample.labels, strict=True)))

        return observe

    for name, metric in METRICS.items():
        make: Any = meter.create_observable_counter if metric.counts else meter.create_observable_gauge
        make(name, callbacks=[observing(name)], unit=metric.unit, description=metric.help)


class _Remembered:
    """One reading for all who ask in the same half second."""

    def __init__(self, reader: RegistryReader) -> None:
        self._reader = reader
        self._read_at = float("-inf")
        self._samples: dict[str, list[Sample]] = {}

    def read(self) -> dict[str, list[Sample]]:
        now = time.monotonic()
        if now - self._read_at > _ONE_READING:
            self._samples = _by_metric(self._reader.read())
            self._read_at = time.monotonic()
        return self._samples


def _by_metric(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        found[sample.metric].append(sample)
    return dict(found)


def _prometheus_name(name: str) -> str:
    """Return a name as Prometheus has it; its library appends ``_total`` to a counter's."""
    return name.replace(".", "_") + ("_seconds" if METRICS[name].unit == "s" else "")


def _without_extra(extra: str, missing: ModuleNotFoundError) -> ModuleNotFoundError:
    text = needs(f"aioregistry.metrics.{extra}", (missing.name or extra).partition(".")[0], extra)
    return ModuleNotFoundError(text, name=missing.name)
