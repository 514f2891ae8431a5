"""The two ends of the Router in plain HTTP: posting to it, and being the target that it posts to."""

import asyncio
import http.client
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

_CALL_S = 30.0


async def post(url: str, body: bytes) -> int:
    """Post to the Router and return the status, 0 where nothing listens."""
    return await asyncio.to_thread(_post, url, body)


def _post(url: str, body: bytes) -> int:
    parts = urlsplit(url)
    link = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_CALL_S)
    try:
        link.request("POST", parts.path, body)
        answer = link.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        return 0
    else:
        return answer.status
    finally:
        link.close()


class Target:
    """An HTTP endpoint on loopback that keeps what is posted to it and answers with a body."""

    def __init__(self) -> None:
        self.port = 0
        self.got: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request, keep its path and body, answer and close."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            lengths = [line.split(":")[1] for line in head if line.lower().startswith("content-length:")]
            body = await reader.readexactly(int(lengths[0]))
            self.got.put_nowait((head[0].split(" ")[1], body))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it went away: the one who posts sees that
        finally:
            writer.close()


@asynccontextmanager
async def target() -> AsyncIterator[Target]:
    """Serve a target on a free port for the length of a block."""
    made = Target()
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made
