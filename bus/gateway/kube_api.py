"""As much of the Kubernetes API as Rules need: the nodes, and Rules and RuleEndpoints by name."""

import os
import ssl
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from bus.gateway.rules import API_VERSION, NAMESPACE, Manifest
from schemas.errors import PermanentError, TransientError

EDGE_NODES = "node-role.kubernetes.io/edge"
"""The label that KubeEdge gives to its nodes."""

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_CALL_S = 15.0
_SAID_CHARACTERS = 300
_PLURALS = {"Rule": "rules", "RuleEndpoint": "ruleendpoints"}


class ClusterError(TransientError):
    """The API server is out of reach or in trouble."""


class ClusterRefusedError(PermanentError):
    """The API server refuses: no right, or no such resource."""


class Cluster:
    """An API server.

    Args:
        server: Its URL; inside a pod that of the cluster. `kubectl proxy` offers one at http://127.0.0.1:8001.
        token: File with a bearer token; inside a pod that of its service account.
        ca: Certificate of the server's authority; the system's authorities if left out.
    """

    def __init__(self, server: str | None = None, token: Path | None = None, ca: Path | None = None) -> None:
        inside = server is None
        self._server = (server or _own_server()).rstrip("/")
        self._token = token or (_ACCOUNT / "token" if inside else None)
        self._ca = ca or (_ACCOUNT / "ca.crt" if inside else None)

    async def __aenter__(self) -> Self:
        """Make the pool of connections.

        Raises:
            ClusterRefusedError: A file cannot be read.
        """
        try:
            headers = {"Authorization": f"Bearer {self._token.read_text().strip()}"} if self._token else {}
            context = ssl.create_default_context(cafile=self._ca)
        except OSError as error:  # ssl.SSLError is one
            raise ClusterRefusedError(
                f"cluster {self._server}", expected="a token and a certificate to read", got=error
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
        """Close it."""
        await self._session.close()

    async def nodes(self, selector: str = EDGE_NODES) -> list[str]:
        """Return the names of the nodes with a label, sorted."""
        found = await self._call("GET", "/api/v1/nodes", params={"labelSelector": selector})
        return sorted(item["metadata"]["name"] for item in found["items"])

    async def names(self, kind: str) -> set[str]:
        """Return the names of all Rules or RuleEndpoints."""
        found = await self._call("GET", _path(kind))
        return {item["metadata"]["name"] for item in found["items"]}

    async def create(self, manifest: Manifest) -> None:
        """Create a Rule or a RuleEndpoint; one of that name stays as it is."""
        await self._call("POST", _path(str(manifest["kind"])), json=manifest, fine=HTTPStatus.CONFLICT)

    async def delete(self, kind: str, name: str) -> None:
        """Delete a Rule or a RuleEndpoint, if it is there."""
        await self._call("DELETE", f"{_path(kind)}/{name}", fine=HTTPStatus.NOT_FOUND)

    async def _call(self, method: str, path: str, *, fine: HTTPStatus | None = None, **options: Any) -> Any:
        subject = f"cluster {self._server}: {method} {path}"
        try:
            async with self._session.request(method, f"{self._server}{path}", **options) as answer:
                if answer.ok or answer.status == fine:
                    return await answer.json()
                said = f"{answer.status} {(await answer.text())[:_SAID_CHARACTERS]}"
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ClusterError(subject, expected="an answer", got=str(error) or "none in time") from None
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise ClusterError(subject, expected="success", got=said)
        raise ClusterRefusedError(subject, expected="to be allowed", got=said)


def _path(kind: str) -> str:
    return f"/apis/{API_VERSION}/namespaces/{NAMESPACE}/{_PLURALS[kind]}"


def _own_server() -> str:
    """Return the API server of the cluster that this process runs in.

    Raises:
        ClusterRefusedError: It runs in none.
    """
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise ClusterRefusedError(
            "cluster", expected="--server, or to run in a pod", got="neither (try `kubectl proxy`)"
        )
    return f"https://{host}:{port}"
