"""Metrics of requests: names and meaning as of tensorflow_model_server, on each implementation."""

import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge.modelserver.monitoring.request_metrics import COUNT, LATENCY, RequestMetrics
from edge.modelserver.status import Code, ServingError
from tests.conftest import DEADLINE_S

pytestmark = pytest.mark.own_process


def read(page: bytes) -> dict[tuple[str, ...], float]:
    """Return the samples of a page by name and values of their labels, in the order of the labels' names."""
    samples = [one for family in text_string_to_metric_families(page.decode()) for one in family.samples]
    return {(one.name, *(value for _, value in sorted(one.labels.items()))): one.value for one in samples}


def fetch(server: Any, path: str = "/monitoring/prometheus/metrics") -> bytes:
    address = f"http://127.0.0.1:{server.metrics_port}{path}"
    with urllib.request.urlopen(address, timeout=DEADLINE_S) as answer:
        page: bytes = answer.read()
        return page


def test_requests_are_counted_by_model_and_status(
    server: Any, client: Any, failure: Callable[..., tuple[str, str]]
) -> None:
    """Each request once, with the status that its client gets; the duration of those that succeed."""
    before = read(fetch(server))
    for _ in range(3):
        client.half("half", [1.0])
    failure(lambda: client.half("half", [1.0], version=99))
    failure(lambda: client.predict("half", {"wrong": [1.0]}))
    found = read(fetch(server))

    def grown(*name: str) -> float:
        return found[name] - before.get(name, 0)

    assert grown(COUNT, "half", "OK") == 3
    assert grown(COUNT, "half", "NOT_FOUND") == 1
    assert grown(COUNT, "half", "INVALID_ARGUMENT") == 1
    assert grown(f"{LATENCY}_count", "Predict", "GRPC", "half") == 3
    assert grown(f"{LATENCY}_bucket", "Predict", "GRPC", "+Inf", "half") == 3
    assert grown(f"{LATENCY}_sum", "Predict", "GRPC", "half") > 0


def test_invented_names_share_a_series(
    server: Any, client: Any, failure: Callable[..., tuple[str, str]]
) -> None:
    """A client cannot fill the memory of Prometheus with names of models."""
    for number in range(3):
        failure(lambda name=f"invented-{number}": client.half(name, [1.0]))
    page = fetch(server)
    assert b"invented" not in page
    assert read(page)[COUNT, "", "NOT_FOUND"] >= 3


def test_nothing_else_is_served_over_http(server: Any) -> None:
    """There is no REST API: its paths are answered with 404."""
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetch(server, "/v1/models/half")


def test_no_request_of_many_threads_is_lost() -> None:
    """The counts are exact under concurrency; bounds are in microseconds."""
    metrics = RequestMetrics(lambda name: name == "pets")

    def call() -> None:
        for number in range(200):
            with suppress(ServingError), metrics.measured("Predict", "pets"):
                if number % 4 == 0:
                    raise ServingError(Code.UNAVAILABLE, "full")

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = read(metrics.page())
    assert (found[COUNT, "pets", "OK"], found[COUNT, "pets", "UNAVAILABLE"]) == (1200, 400)
    assert found[f"{LATENCY}_bucket", "Predict", "GRPC", "1e+06", "pets"] == 1200
