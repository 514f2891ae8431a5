"""The metrics of a mirror, which has no Status: it is at no broker."""

from collections.abc import Iterator

from bus.metrics import Counters
from bus.observability import metric_catalogue as catalogue
from bus.observability.exposition import counter_measurements, written
from bus.observability.measurements import Measurement, certificate_end, disk_measurements
from schemas.distribution import version

_OF_A_SITE, _NAME = "site", "mirror"


class Metrics:
    """What a mirror measures.

    Args:
        counters: Of what has happened.
        folder: Of the bundles.
        certificate: PEM file of the server's certificate; None without TLS.
    """

    def __init__(self, counters: Counters, folder: str, certificate: str | None) -> None:
        self._counters = counters
        self._folder = folder
        self._certificate = certificate

    def page(self, *, ready: bool) -> bytes:
        """Return the metrics as of now, in Prometheus' text format."""
        return written(self._measurements(ready=ready))

    def _measurements(self, *, ready: bool) -> Iterator[Measurement]:
        yield Measurement(catalogue.TARGET_INFO, 1, (_OF_A_SITE, _NAME, version()))
        yield Measurement(catalogue.READY, int(ready))
        yield from counter_measurements("mirror", self._counters.snapshot())
        yield from disk_measurements(self._folder)
        if self._certificate is not None and (ends_at := certificate_end(self._certificate)) is not None:
            yield Measurement(catalogue.SERVER_CERTIFICATE_END, ends_at, ("server",))
