"""Client for the part of the Kubernetes API that Rules need: nodes, Rules and RuleEndpoints."""

import os
import ssl
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from bus.gateway.rules.rules import API_VERSION, NAMESPACE, Manifest
from schemas.errors import PermanentError, TransientError

EDGE_NODES = "node-role.kubernetes.io/edge"
"""Label of edge nodes, set by KubeEdge."""

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_CALL_S = 15.0
_QUOTED_CHARS = 300
_PLURALS = {"Rule": "rules", "RuleEndpoint": "ruleendpoints"}


class ClusterError(TransientError):
    """The API server cannot be reached, or failed."""


class ClusterRefusedError(PermanentError):
    """The API server refuses a request: it is not permitted, or the resource is unknown."""


class Cluster:
    """Client of an API server.

    Args:
        server: Its URL; None in a pod: that of the cluster. `kubectl proxy` serves one at http://127.0.0.1:8001.
        token: File with a bearer token; None in a pod: that of its service account.
        ca: CA certificate of the server; the system's CAs if None.
    """

    def __init__(self, server: str | None = None, token: Path | None = None, ca: Path | None = None) -> None:
        in_pod = server is None
        self._server = (server or _server_of_pod()).rstrip("/")
        self._token = token or (_SERVICE_ACCOUNT / "token" if in_pod else None)
        self._ca = ca or (_SERVICE_ACCOUNT / "ca.crt" if in_pod else None)

    async def __aenter__(self) -> Self:
        """Create the connection pool.

        Raises:
            ClusterRefusedError: The token or the CA certificate cannot be read.
        """
        try:
            # Read once: tokens of service accounts are renewed on disk, but a run takes minutes, not hours.
            headers = {"Authorization": f"Bearer {self._token.read_text().strip()}"} if self._token else {}
            context = ssl.create_default_context(cafile=self._ca)
        except OSError as error:  # ssl.SSLError is one
            raise ClusterRefusedError(
                f"cannot read token or CA certificate for cluster {self._server}: {error}"
            ) from None
        self._session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=_CALL_S),
            connector=aiohttp.TCPConnector(ssl=context),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pool."""
        await self._session.close()

    async def nodes(self, selector: str = EDGE_NODES) -> list[str]:
        """Return the sorted names of the nodes with a label."""
        nodes = await self._call("GET", "/api/v1/nodes", params={"labelSelector": selector})
        return sorted(item["metadata"]["name"] for item in nodes["items"])

    async def names(self, kind: str) -> set[str]:
        """Return the names of all Rules or RuleEndpoints."""
        resources = await self._call("GET", _path(kind))
        return {item["metadata"]["name"] for item in resources["items"]}

    async def create(self, manifest: Manifest) -> None:
        """Create a Rule or RuleEndpoint, unless one with that name exists."""
        await self._call("POST", _path(str(manifest["kind"])), json=manifest, accept=HTTPStatus.CONFLICT)

    async def delete(self, kind: str, name: str) -> None:
        """Delete a Rule or RuleEndpoint, if it exists."""
        await self._call("DELETE", f"{_path(kind)}/{name}", accept=HTTPStatus.NOT_FOUND)

    async def _call(self, method: str, path: str, *, accept: HTTPStatus | None = None, **options: Any) -> Any:
        subject = f"cluster {self._server}: {method} {path}"
        try:
            async with self._session.request(method, f"{self._server}{path}", **options) as response:
                # `accept`: 409 if it exists already, 404 if it is already deleted.
                if response.ok or response.status == accept:
                    return await response.json()
                reply = f"{response.status} {(await response.text())[:_QUOTED_CHARS]}"
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ClusterError(f"{subject} failed: {str(error) or 'no answer in time'}") from None
        if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise ClusterError(f"{subject} failed: {reply}")
        raise ClusterRefusedError(f"{subject} was refused: {reply}")


def _path(kind: str) -> str:
    return f"/apis/{API_VERSION}/namespaces/{NAMESPACE}/{_PLURALS[kind]}"


def _server_of_pod() -> str:
    """Return the URL of the API server of the cluster that this pod runs in.

    Raises:
        ClusterRefusedError: This process does not run in a pod.
    """
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise ClusterRefusedError(
            "no API server: this process does not run in a pod",
            hint="run `kubectl proxy` and pass --server http://127.0.0.1:8001",
        )
    return f"https://{host}:{port}"
