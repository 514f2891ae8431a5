"""A stand-in for Prometheus and its adapter: an API server of custom metrics whose values a test sets."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

from aiohttp import web

from bus.security import certificates
from bus.security.certificates import Authority
from tests.pods.kubectl import Thing

_GROUP, _VERSION = "custom.metrics.k8s.io", "v1beta2"


class MetricsStandIn:
    """Custom metrics of pods.

    Args:
        metric: Name of the only metric.
        namespace: Of the pods.

    Attributes:
        values: By name of the pod; a pod without one has no metric.
        asked: Selectors of the labels that were asked for.
    """

    def __init__(self, metric: str, namespace: str) -> None:
        self.values: dict[str, int] = {}
        self.asked: set[str] = set()
        self._metric = metric
        self._namespace = namespace
        self._port = 0

    @asynccontextmanager
    async def running(self, folder: Path) -> AsyncIterator[None]:
        """Serve on loopback for the length of a block; the folder is for the certificate."""
        app = web.Application()
        root = f"/apis/{_GROUP}/{_VERSION}"
        app.router.add_get(root, self._discovery)
        app.router.add_get(f"{root}/namespaces/{self._namespace}/pods/*/{self._metric}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=_tls(folder)).start()
        self._port = runner.addresses[0][1]
        try:
            yield
        finally:
            await runner.cleanup()

    def objects(self) -> list[Thing]:
        """Return what makes the API server pass requests for custom metrics on to it."""
        service = {"namespace": self._namespace, "name": "metrics"}
        return [
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": service,
                "spec": {"type": "ExternalName", "externalName": "localhost"},
            },
            {
                "apiVersion": "apiregistration.k8s.io/v1",
                "kind": "APIService",
                "metadata": {"name": f"{_VERSION}.{_GROUP}"},
                "spec": {
                    "group": _GROUP,
                    "version": _VERSION,
                    "groupPriorityMinimum": 100,
                    "versionPriority": 100,
                    "insecureSkipTLSVerify": True,
                    "service": service | {"port": self._port},
                },
            },
        ]

    async def _discovery(self, request: web.Request) -> web.Response:
        resource = {"name": f"pods/{self._metric}", "singularName": "", "namespaced": True}
        return web.json_response(
            {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": f"{_GROUP}/{_VERSION}",
                "resources": [resource | {"kind": "MetricValueList", "verbs": ["get"]}],
            }
        )

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.add(request.query.get("labelSelector", ""))
        if not self.values:
            status = {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "reason": "NotFound",
                "code": 404,
            }
            return web.json_response(status, status=HTTPStatus.NOT_FOUND)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        items = [
            {
                "describedObject": {
                    "kind": "Pod", "apiVersion": "/v1", "namespace": self._namespace, "name": name,
                },
                "metric": {"name": self._metric},
                "timestamp": now,
                "value": str(value),
            }
            for name, value in self.values.items()
        ]  # fmt: skip
        return web.json_response(
            {"kind": "MetricValueList", "apiVersion": f"{_GROUP}/{_VERSION}", "metadata": {}, "items": items}
        )


def _tls(folder: Path) -> ssl.SSLContext:
    key, own = certificates.new_key(), certificates.new_key()
    authority = Authority(certificates.authority_certificate(key, "metrics", days=1), key)
    server = certificates.broker_certificate(authority, own, "metrics", ["localhost"], days=1)
    (folder / "metrics.pem").write_bytes(own + server)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "metrics.pem")
    return context
