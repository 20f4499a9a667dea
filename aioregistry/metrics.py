"""Metrics of a registry, for Prometheus and for OpenTelemetry; each is read when it is asked for.

Nothing is done per change of a service: gauges are read from the registry when they are scraped, and counters count the
events of ``on_event``, which are few. Once there is a reader, each answered request adds 1 to one of ten numbers.
Balancers count their picks with and without one.

Reading takes place on the registry's event loop, from whichever thread it is asked. If that loop does not answer within
two seconds, ``aioregistry.up`` is 0, and no other metric is reported.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from ._extras import needs
from ._metrics.durations import BOUNDS, Growth
from ._metrics.reader import AnyRegistry, RegistryReader
from ._metrics.table import METRICS, Kind, Sample

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector

__all__ = ["opentelemetry", "prometheus"]

_ONE_READING: Final = 0.5
"""Seconds: OpenTelemetry asks for each instrument by itself, and all are to be of one moment."""


def prometheus(registry: AnyRegistry, *, to: CollectorRegistry | None = None) -> Collector:
    """Return a collector of *registry*'s metrics that reads when it is scraped. Needs the extra ``prometheus``.

    Names are Prometheus's: ``aioregistry_session_expirations_total``, ``aioregistry_session_evidence_age_seconds``.

    Args:
        registry: on this loop, on a thread of its own, or a blocking one; entered or not; counters begin now.
        to: the prometheus_client registry to register the collector with; unless given, it is not registered.

    Raises:
        InvalidArgument: *registry* is not a registry.
        ModuleNotFoundError: the extra is missing.
    """
    try:
        from prometheus_client.metrics_core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )
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
                if metric.kind is Kind.HISTOGRAM:
                    distributed = HistogramMetricFamily(_prometheus_name(name), metric.help, labels=metric.labels)
                    for sample in samples[name]:
                        distributed.add_metric(sample.labels, _cumulated(sample), sample.value)
                    yield distributed
                    continue
                kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
                family = kind(_prometheus_name(name), metric.help, labels=metric.labels)
                for sample in samples[name]:
                    family.add_metric(sample.labels, sample.value)
                yield family

    collector = RegistryCollector()
    if to is not None:
        to.register(collector)
    return collector


def opentelemetry(registry: AnyRegistry, *, meter: Meter | None = None) -> None:
    """Observe *registry*'s metrics by instruments that read when they are exported. Needs the extra ``opentelemetry``.

    Args:
        registry: on this loop, on a thread of its own, or a blocking one; entered or not; counters begin now.
        meter: makes the instruments; that of the global meter provider for ``aioregistry`` unless given.

    Raises:
        InvalidArgument: *registry* is not a registry.
        ModuleNotFoundError: the extra is missing.
    """
    try:
        from opentelemetry.metrics import Observation, get_meter
    except ModuleNotFoundError as missing:
        raise _without_extra("opentelemetry", missing) from missing
    meter = get_meter("aioregistry") if meter is None else meter
    recorder = _Recorder(meter)
    reader = _Remembered(RegistryReader(registry), recorder.record)

    def observing(name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        labels = METRICS[name].labels

        def observe(_: CallbackOptions) -> Iterator[Observation]:
            for sample in reader.read().get(name, ()):
                yield Observation(sample.value, dict(zip(labels, sample.labels, strict=True)))

        return observe

    makers: dict[Kind, Any] = {
        Kind.COUNTER: meter.create_observable_counter,
        Kind.GAUGE: meter.create_observable_gauge,
    }
    for name, metric in METRICS.items():
        if metric.kind in makers:
            makers[metric.kind](name, callbacks=[observing(name)], unit=metric.unit, description=metric.help)


class _Recorder:
    """Records the values of histograms, of which there is no observable kind.

    A value recorded in a callback is exported with the values that the callbacks observe.
    """

    def __init__(self, meter: Meter) -> None:
        self._histograms = {
            name: meter.create_histogram(
                name, unit=metric.unit, description=metric.help, explicit_bucket_boundaries_advisory=BOUNDS
            )
            for name, metric in METRICS.items()
            if metric.kind is Kind.HISTOGRAM
        }
        self._growth = Growth()

    def record(self, samples: Mapping[str, list[Sample]]) -> None:
        """Record the new values: for each bucket their number, with their common sum."""
        for name, histogram in self._histograms.items():
            for sample in samples.get(name, ()):
                attributes = dict(zip(METRICS[name].labels, sample.labels, strict=True))
                for values, total in self._growth.of(sample):
                    for _ in range(values):
                        histogram.record(total / values, attributes)


class _Remembered:
    """One reading for all who ask in the same half second.

    Args:
        reader: reads the registry.
        record: is given each reading.
    """

    def __init__(self, reader: RegistryReader, record: Callable[[Mapping[str, list[Sample]]], None]) -> None:
        self._reader, self._record = reader, record
        self._read_at = float("-inf")
        self._samples: dict[str, list[Sample]] = {}

    def read(self) -> dict[str, list[Sample]]:
        now = time.monotonic()
        if now - self._read_at > _ONE_READING:
            self._samples = _by_metric(self._reader.read())
            self._record(self._samples)
            self._read_at = time.monotonic()
        return self._samples


def _by_metric(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        found[sample.metric].append(sample)
    return dict(found)


def _cumulated(sample: Sample) -> list[tuple[str, float]]:
    """Return Prometheus's buckets: each with its upper bound, and how many values are not above that."""
    bounds = [*map(str, BOUNDS), "+Inf"]
    return list(zip(bounds, accumulate(float(each.values) for each in sample.buckets), strict=True))


def _prometheus_name(name: str) -> str:
    """Return a name as Prometheus has it; its library appends ``_total`` to a counter's."""
    return name.replace(".", "_") + ("_seconds" if METRICS[name].unit == "s" else "")


def _without_extra(extra: str, missing: ModuleNotFoundError) -> ModuleNotFoundError:
    text = needs(f"aioregistry.metrics.{extra}", (missing.name or extra).partition(".")[0], extra)
    return ModuleNotFoundError(text, name=missing.name)
