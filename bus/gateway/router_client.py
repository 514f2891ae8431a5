"""The client of KubeEdge's Router, which publishes at an edge node's broker what is POSTed to it."""

from http import HTTPStatus
from types import TracebackType
from typing import Self

import aiohttp

from bus.gateway.routes import down_url
from schemas.errors import PermanentError, TransientError

_SAID_BYTES = 200
_NEVER = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


class RouterError(TransientError):
    """The Router is away, has no rule for it, or has no connection to the node."""


class RouterRefusedError(PermanentError):
    """The Router will never take this message."""


class Router:
    """The Router of one cloudcore.

    Args:
        url: For example `http://cloudcore.kubeedge:9443`.
        timeout_s: Deadline of each POST, in seconds.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._url = url
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def __aenter__(self) -> Self:
        """Make the pool of connections; callers bound how many there are at once."""
        self._session = aiohttp.ClientSession(
            timeout=self._timeout, connector=aiohttp.TCPConnector(limit=0), trust_env=False
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; calls under way are cancelled."""
        await self._session.close()

    async def post(self, node: str, topic: str, payload: bytes) -> None:
        """Have a message published at a node. That it was taken does not mean that it arrives.

        Cancelling may leave it published or not.

        Raises:
            RouterError: Try again later.
            RouterRefusedError: Never.
        """
        try:
            async with self._session.post(down_url(self._url, node, topic), data=payload) as answer:
                said = (await answer.content.read(_SAID_BYTES)).decode(errors="replace")
            said = " ".join(said.split())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._away(node, str(error) or "no answer in time") from None
        if answer.status in _NEVER:
            raise RouterRefusedError(topic, expected="a message that the Router takes", got=said)
        if answer.status != HTTPStatus.OK:
            raise self._away(node, f"{answer.status} {said}")

    def _away(self, node: str, got: str) -> RouterError:
        return RouterError(f"Router {self._url}", expected=f"to reach node {node}", got=got)
