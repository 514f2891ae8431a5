"""What a service measures when Prometheus asks, among it the broker's count of dropped messages."""

import os
import ssl

# `ssl` reads the certificates of peers only. cryptography is in the extras of some services.
from _ssl import _test_decode_cert  # type: ignore[attr-defined]  # private, so that typeshed lacks it
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bus.config import Broker, OutboxLimits
from bus.metrics import Durations
from bus.mqtt.client import Bus
from bus.observability import metric_catalogue as catalogue
from bus.observability.metric_catalogue import Metric
from bus.outbox.outbox import Outbox

_DROPPED_TOPIC = "$SYS/broker/publish/messages/dropped"


class Measurement(NamedTuple):
    """The present value of a metric; `labels` are the values of its labels in order."""

    metric: Metric
    value: float | Durations
    labels: tuple[str, ...] = ()


def outbox_measurements(name: str, outbox: Outbox, limits: OutboxLimits) -> Iterator[Measurement]:
    """Yield how full an outbox is and how old its oldest message; `name` is `photo` or `sample`."""
    used = max(len(outbox) / limits.max_messages, outbox.size_bytes / limits.max_bytes)
    yield Measurement(catalogue.OUTBOX_UNANSWERED, len(outbox), (name,))
    yield Measurement(catalogue.OUTBOX_UTILIZATION, round(used, 6), (name,))
    yield Measurement(catalogue.OUTBOX_OLDEST, round(outbox.oldest_s(), 3), (name,))


def disk_measurements(folder: str | Path) -> Iterator[Measurement]:
    """Yield the free space of a folder's file system for a user without privileges; nothing if it is gone."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return
    yield Measurement(catalogue.DISK_FREE, found.f_bavail * found.f_frsize, ("free",))


def certificate_measurements(broker: Broker) -> Iterator[Measurement]:
    """Yield when the client certificate and the CA of a connection end; nothing without TLS.

    The files are read at each call: a renewed certificate takes effect with the next connection too.
    """
    if broker.tls is None:
        return
    files = {"client": broker.tls.certificate, "ca": broker.tls.ca}
    for name, path in files.items():
        if path is not None and (ends_at := certificate_end(path)) is not None:
            yield Measurement(catalogue.CERTIFICATE_END, ends_at, (name,))


def certificate_end(path: str) -> float | None:
    """Return when the first certificate of a PEM file ends, in seconds since 1970; None if it has none."""
    try:
        decoded = _test_decode_cert(path)
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        return None
    return float(ssl.cert_time_to_seconds(str(decoded["notAfter"])))


class BrokerDrops:
    """The number of messages that the broker dropped, from its own statistics.

    Args:
        bus: Not running yet. A broker without statistics, or one that hides them, is not an error.
    """

    def __init__(self, bus: Bus) -> None:
        self._queue = bus.subscribe_raw(_DROPPED_TOPIC, queue=4, optional=True)
        self._dropped: int | None = None

    def measurements(self) -> Iterator[Measurement]:
        """Yield the newest count; nothing before the first."""
        while not self._queue.empty():
            payload = self._queue.get_nowait().payload
            if payload.isdigit():
                self._dropped = int(payload)
        if self._dropped is not None:
            yield Measurement(catalogue.BROKER_DROPS, self._dropped)
