"""Counts and durations of requests, under the names that tensorflow_model_server has for them."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bus.metrics import Durations
from edge.modelserver.status import Code, ServingError

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

COUNT = ":tensorflow:serving:request_count"
LATENCY = ":tensorflow:serving:request_latency"

_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_MICROSECONDS = 1e6
_UNKNOWN = ""


class RequestMetrics:
    """Metrics of requests for Prometheus. Thread-safe.

    Args:
        is_served: Returns whether a model of this name is served. Others share one series, because a client
            can invent any number of names.
    """

    def __init__(self, is_served: Callable[[str], bool]) -> None:
        self._is_served = is_served
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._latencies: dict[tuple[str, str], Durations] = {}

    @contextmanager
    def measured(self, api: str, model: str) -> Iterator[None]:
        """Count the request that runs in a block, with the status of the ServingError that ends it."""
        began_s = time.monotonic()
        code = Code.OK
        try:
            yield
        except ServingError as error:
            code = error.code
            raise
        except BaseException:
            code = Code.UNKNOWN  # as gRPC reports it to the client
            raise
        finally:
            self._observe(
                api, model if self._is_served(model) else _UNKNOWN, code, time.monotonic() - began_s
            )

    def _observe(self, api: str, model: str, code: Code, duration_s: float) -> None:
        with self._lock:
            self._counts[model, code.name] += 1
            if code is Code.OK:
                self._latencies.setdefault((model, api), Durations(_BOUNDS_S)).observe(duration_s)

    def page(self) -> bytes:
        """Return the metrics as of now, in Prometheus' text format."""
        from prometheus_client import generate_latest  # noqa: PLC0415  # only servers that are asked load it

        with self._lock:
            return generate_latest(self)

    def collect(self) -> "list[Metric]":
        """Return the metric families, as prometheus_client asks for them."""
        from prometheus_client.metrics_core import HistogramMetricFamily, Metric  # noqa: PLC0415  # as above

        # "unknown": the name of a counter would have to end in `_total`, and theirs does not.
        counts = Metric(COUNT, "requests by status", "unknown")
        for (model, status), count in sorted(self._counts.items()):
            counts.add_sample(COUNT, {"model_name": model, "status": status}, count)
        latencies = HistogramMetricFamily(
            LATENCY, "microseconds of a request that succeeded", labels=("model_name", "API", "entrypoint")
        )
        for (model, api), durations in sorted(self._latencies.items()):
            buckets = [(_in_microseconds(bound_s), count) for bound_s, count in durations.buckets()]
            latencies.add_metric((model, api, "GRPC"), buckets, durations.total_s * _MICROSECONDS)
        return [counts, latencies]


def _in_microseconds(bound_s: str) -> str:
    return bound_s if bound_s == "+Inf" else f"{float(bound_s) * _MICROSECONDS:g}"
