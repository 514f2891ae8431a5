"""Both ends of the Router in plain HTTP: post to it, and receive its posts."""

import asyncio
import http.client
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

_CALL_S = 30.0


async def post(url: str, body: bytes) -> int:
    """Post to the Router and return the HTTP status, 0 if it cannot be reached."""
    return await asyncio.to_thread(_post, url, body)


def _post(url: str, body: bytes) -> int:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_CALL_S)
    try:
        connection.request("POST", parts.path, body)
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException):
        return 0
    else:
        return response.status
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Posted:
    """A request, and its time on the monotonic clock in seconds."""

    path: str
    body: bytes
    at: float


class Target:
    """An HTTP endpoint on loopback that records its requests.

    Args:
        status: Status of its responses.
    """

    def __init__(self, status: int = HTTPStatus.OK) -> None:
        self.status = status
        self.port = 0
        self.posts: list[Posted] = []
        self.got: asyncio.Queue[Posted] = asyncio.Queue()

    def url(self, path: str) -> str:
        """Return the URL of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request, record its path and body, respond and close."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            lengths = [line.split(":")[1] for line in head if line.lower().startswith("content-length:")]
            body = await reader.readexactly(int(lengths[0]))
            self.posts.append(Posted(head[0].split(" ")[1], body, time.monotonic()))
            self.got.put_nowait(self.posts[-1])
            # With a body: without one cloudcore leaks a file descriptor per message.
            writer.write(b"HTTP/1.1 %d x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok" % self.status)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client closed the connection and knows that its request failed
        finally:
            writer.close()


@asynccontextmanager
async def target(status: int = HTTPStatus.OK) -> AsyncIterator[Target]:
    """Serve a target on a free port for the duration of a block."""
    made = Target(status)
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made
