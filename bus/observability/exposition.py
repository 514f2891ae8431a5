"""Write the metrics of a service in Prometheus' text format, when they are asked for."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from bus.metrics import Durations
from bus.mqtt.client import Bus
from bus.observability import metric_catalogue as catalogue
from bus.observability.measurements import Measurement
from bus.observability.metric_catalogue import Metric, Service
from schemas.messages import Status

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

Source = Callable[[], Iterable[Measurement]]


class Exposition:
    """The metrics of one service: its Status, further measurements, and its process.

    Nothing is kept between two requests: counters are those of the Status.

    Args:
        service: Which one, as the catalogue names it.
        bus: Its connection, with a Status.
        sources: Called for each request; must not block.
    """

    def __init__(self, service: Service, bus: Bus, *sources: Source) -> None:
        self._service = service
        self._bus = bus
        self._sources = sources

    def page(self) -> bytes:
        """Return the metrics as of now."""
        return written(self._measurements())

    def _measurements(self) -> Iterator[Measurement]:
        status, ready = self._bus.status(), self._bus.unready_reason() is None
        yield Measurement(catalogue.TARGET_INFO, 1, (status.node, status.name, status.software))
        yield Measurement(catalogue.READY, int(ready))
        yield from counter_measurements(self._service, status.counters)
        yield from edge_measurements(status)
        for source in self._sources:
            yield from source()


def written(measurements: Iterable[Measurement]) -> bytes:
    """Return measurements, and those of this process, in Prometheus' text format."""
    from prometheus_client import generate_latest  # noqa: PLC0415  # only services that are asked load it

    return generate_latest(_Families([*_families(measurements), *_process_families()]))


def edge_measurements(status: Status) -> Iterator[Measurement]:
    """Yield an edge's figures of its model and its devices, from its Status; nothing for other services."""
    if status.model is not None:
        serving = status.model.state == "available"
        yield Measurement(catalogue.MODEL_VERSION, (status.model.version or 0) if serving else 0)
        yield Measurement(catalogue.WRONG_CLOCKS, len(status.clock_offsets_s))


def counter_measurements(service: Service, counters: Mapping[str, int]) -> Iterator[Measurement]:
    """Yield the metrics that add up counters; a counter that no metric names is in the Status alone."""
    for metric, pattern in catalogue.COUNTED:
        if service not in metric.services:
            continue
        sums = dict.fromkeys(metric.values, 0)
        for name, count in counters.items():
            if (match := pattern.fullmatch(name)) is not None and match.groups() in sums:
                sums[match.groups()] += count
        yield from (Measurement(metric, count, labels) for labels, count in sums.items())


class _Families:
    """Metric families as prometheus_client collects them."""

    def __init__(self, families: "list[Family]") -> None:
        self._families = families

    def collect(self) -> "list[Family]":
        """Return them."""
        return self._families


def _families(measurements: Iterable[Measurement]) -> "Iterator[Family]":
    by_metric: dict[Metric, list[Measurement]] = {}
    for measurement in measurements:
        by_metric.setdefault(measurement.metric, []).append(measurement)
    return (_family(metric, found) for metric, found in by_metric.items())


def _family(metric: Metric, found: list[Measurement]) -> "Family":
    from prometheus_client.metrics_core import HistogramMetricFamily  # noqa: PLC0415  # as above
    from prometheus_client.metrics_core import Metric as Family  # noqa: PLC0415  # as above

    histogram = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    family = Family(metric.name, metric.meaning, metric.kind)
    for one in found:
        if isinstance(one.value, Durations):
            histogram.add_metric(one.labels, buckets=one.value.buckets(), sum_value=one.value.total_s)
        else:
            labels = dict(zip(metric.labels, one.labels, strict=True))
            family.add_sample(metric.shown_name, labels, one.value)
    return histogram if metric.kind == "histogram" else family


def _process_families() -> "Iterator[Family]":
    from prometheus_client import ProcessCollector  # noqa: PLC0415  # as above

    families = ProcessCollector(registry=None).collect()
    return (family for family in families if family.name in catalogue.PROCESS_NAMES)
