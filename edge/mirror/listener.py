"""Listen for edges, with bounds: of connections, of the time that a request's head takes, of open files."""

import asyncio
import resource
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from aiohttp import web

from bus.config import host_and_port
from bus.observability.connection_limit import HEAD_S, LimitedProtocol
from schemas.errors import PermanentError

_CONNECTIONS = 1000
"""Most connections; each request has one, also while it waits for a download."""
_FILES = 4096  # open ones: a connection that is sent a file has two


class MirrorError(PermanentError):
    """The mirror cannot listen at its address."""


async def listen(
    app: web.Application, address: str, tls: ssl.SSLContext | None
) -> tuple[asyncio.Server, Callable[[], Awaitable[None]]]:
    """Serve an application; return the server, and what to call after its end.

    Raises:
        MirrorError: The address is in use, or is not an address of this machine.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    assert runner.server is not None  # after `setup`
    create = partial(
        asyncio.get_running_loop().create_server,
        # Not a TCPSite: aiohttp has no deadline for the head of a request, and no bound of connections.
        LimitedProtocol.factory(runner.server, _CONNECTIONS),
        *host_and_port(address),
        reuse_address=True,
    )
    try:
        server = await (create() if tls is None else create(ssl=tls, ssl_handshake_timeout=HEAD_S))
    # UnicodeError: a name that no resolver takes; OverflowError: a port above 65535.
    except (OSError, UnicodeError, OverflowError) as error:
        await runner.cleanup()
        raise MirrorError(
            f"the mirror cannot listen on {address}: {getattr(error, 'strerror', None) or error}",
            hint="choose another address with --listen",
        ) from None
    return server, runner.cleanup


def allow_files() -> None:
    """Raise the limit of open files, as far as this process may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if wanted > soft:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
