"""HTTP client of KubeEdge's Router, which publishes a POSTed message at an edge node's broker."""

from http import HTTPStatus
from types import TracebackType
from typing import Self

import aiohttp

from bus.gateway.routes import down_url
from schemas.errors import PermanentError, TransientError

_POST_S = 10.0
_QUOTED_BYTES = 200
# Other statuses may pass: 404 until a missing Rule is created, 500 until the node is online again.
_PERMANENT = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


class RouterError(TransientError):
    """The Router cannot be reached, has no rule for the message, or no connection to the node.

    Args:
        url: URL of the Router.
        node: The node.
        reason: The Router's answer, or what failed.
    """

    def __init__(self, url: str, node: str, reason: str) -> None:
        super().__init__(f"Router {url} did not take a message for node {node}: {reason}")
        self.reason = reason


class RouterRefusedError(PermanentError):
    """The Router will never take this message.

    Args:
        topic: Of the message.
        reason: The Router's answer.
    """

    def __init__(self, topic: str, reason: str) -> None:
        super().__init__(f"the Router rejected a message on {topic}: {reason}")
        self.reason = reason


class Router:
    """Client of the Router of one cloudcore.

    Args:
        url: For example `http://cloudcore.kubeedge:9443`.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    async def __aenter__(self) -> Self:
        """Create the connection pool, without a limit: callers limit their concurrency."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_POST_S),
            connector=aiohttp.TCPConnector(limit=0),
            trust_env=False,  # the Router is in the cluster: no proxy
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pool; running requests are cancelled."""
        await self._session.close()

    async def post(self, node: str, topic: str, payload: bytes) -> None:
        """Ask the Router to publish a message at a node. Success does not mean that it was delivered.

        If cancelled, the message may or may not be published.

        Raises:
            RouterError: Failed, but may succeed later.
            RouterRefusedError: Will never succeed.
        """
        try:
            async with self._session.post(down_url(self._url, node, topic), data=payload) as response:
                # The Router answers in a few words, but another server at this address may send a page.
                body = (await response.content.read(_QUOTED_BYTES)).decode(errors="replace")
            text = " ".join(body.split())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RouterError(self._url, node, str(error) or "no answer in time") from None
        if response.status in _PERMANENT:
            raise RouterRefusedError(topic, text)
        if response.status != HTTPStatus.OK:
            raise RouterError(self._url, node, f"{response.status} {text}")
