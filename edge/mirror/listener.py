"""Listen for edges, with bounds: of connections, of the time that a request's head takes, of open files."""

import asyncio
import resource
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiohttp import web

from bus.config import host_and_port
from bus.observability.connection_limit import HEAD_S, LimitedProtocol
from schemas.errors import PermanentError

_CONNECTIONS = 1000
"""Most connections; each request has one, also while it waits for a download."""
_FILES = 4096  # open ones: a connection that is sent a file has two


class MirrorError(PermanentError):
    """The mirror cannot listen at its address."""


@asynccontextmanager
async def serving(app: web.Application, address: str, tls: ssl.SSLContext | None) -> AsyncIterator[int]:
    """Serve an application for the length of a block, entered with its port.

    Bounded: beyond `_CONNECTIONS`, the oldest one whose request has not begun is closed, else the oldest; one
    that sends nothing is closed after 5 s. An edge whose connection ends continues with its bundle's own URL.

    Args:
        app: What answers.
        address: HOST:PORT.
        tls: Of the server's certificate; None for plain HTTP.

    Raises:
        MirrorError: The address is in use, or is not an address of this machine.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        assert runner.server is not None  # after `setup`
        try:
            # Not a TCPSite: aiohttp has no deadline for the head of a request, and no bound of connections.
            server = await asyncio.get_running_loop().create_server(
                LimitedProtocol.factory(runner.server, _CONNECTIONS),
                *host_and_port(address),
                reuse_address=True,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else HEAD_S,
            )
        # UnicodeError: a name that no resolver takes; OverflowError: a port above 65535.
        except (OSError, UnicodeError, OverflowError) as error:
            raise MirrorError(
                f"the mirror cannot listen on {address}: {getattr(error, 'strerror', None) or error}",
                hint="choose another address with --listen",
            ) from None
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()
    finally:
        await runner.cleanup()


def allow_files() -> None:
    """Raise the limit of open files, as far as this process may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if wanted > soft:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
