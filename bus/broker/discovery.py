"""Announce a broker in the local network, and find it there: multicast DNS, RFC 6762 and RFC 6763.

Anyone in the network can announce anything. So a client must check the broker's certificate, as TLS does, and
nothing secret is announced.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from schemas.distribution import install_command
from schemas.errors import PermanentError, TransientError

SERVICE = "_secure-mqtt._tcp.local."
"""Type of the service, as registered for MQTT over TLS."""
_NAMES_AT_ONCE = 64
_ANSWER_MS = 3000


class Found(NamedTuple):
    """An announced broker.

    Attributes:
        host: Name or address that its certificate has.
        port: TCP port, TLS.
    """

    host: str
    port: int


@asynccontextmanager
async def announced(node: str, host: str, port: int, address: str) -> AsyncIterator[None]:
    """Announce the broker of a node until the block ends.

    Args:
        node: Edge node.
        host: Name or address that the broker's certificate has.
        port: TCP port, TLS.
        address: IPv4 address of this machine, on whose interface it is announced.

    Raises:
        PermanentError: The package `zeroconf` is not installed.
        TransientError: The interface cannot send to a multicast group.
    """
    _check_installed()
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf  # noqa: PLC0415 - an extra

    info = AsyncServiceInfo(
        SERVICE,
        f"gleaner-{node}.{SERVICE}",
        addresses=[socket.inet_aton(address)],
        port=port,
        properties={"node": node, "host": host},
        server=f"gleaner-{node}.local.",
    )
    try:
        responder = AsyncZeroconf(interfaces=[address])
    except OSError as error:
        raise _not_announced(address, error) from error
    try:
        try:
            await (await responder.async_register_service(info, allow_name_change=True))
        except OSError as error:
            raise _not_announced(address, error) from error
        yield
    finally:
        with suppress(OSError):  # the network may be gone; the announcement expires anyway
            await responder.async_unregister_all_services()
        await responder.async_close()


async def find_broker(node: str, timeout_s: float, interfaces: Sequence[str] = ()) -> Found:
    """Wait for the announcement of a node's broker. Safe to cancel.

    Args:
        node: Edge node.
        timeout_s: Longest time in seconds.
        interfaces: Addresses of this machine to listen on; all if empty.

    Raises:
        PermanentError: The package `zeroconf` is not installed.
        TransientError: None was announced in time, or there is no network.
    """
    _check_installed()
    from zeroconf import InterfaceChoice  # noqa: PLC0415 - an extra
    from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf  # noqa: PLC0415 - as above

    names: asyncio.Queue[str] = asyncio.Queue(_NAMES_AT_ONCE)

    def seen(name: str, **_: Any) -> None:
        with suppress(asyncio.QueueFull):  # it is announced again
            names.put_nowait(name)

    others = set()
    try:
        listener = AsyncZeroconf(interfaces=list(interfaces) or InterfaceChoice.All)
        try:
            AsyncServiceBrowser(listener.zeroconf, SERVICE, handlers=[seen])
            async with asyncio.timeout(timeout_s):
                while True:
                    info = AsyncServiceInfo(SERVICE, await names.get())
                    if await info.async_request(listener.zeroconf, _ANSWER_MS):
                        told = info.decoded_properties
                        if told.get("node") == node and told.get("host") and info.port:
                            return Found(str(told["host"]), info.port)
                        others.add(str(told.get("node")))
        finally:
            await listener.async_close()
    except TimeoutError:
        heard = f"; announced were {', '.join(sorted(others))}" if others else ""
        raise TransientError(
            f"no broker of node {node!r} was announced within {timeout_s:g} s{heard}",
            hint="is 'gleaner up' running in this network? Otherwise name the broker with --broker",
        ) from None
    except OSError as error:
        raise TransientError(f"cannot listen for announcements: {error}") from error


def _not_announced(address: str, error: OSError) -> TransientError:
    return TransientError(f"cannot announce the broker on {address}: {error}")


def _check_installed() -> None:
    try:
        import zeroconf  # noqa: F401, PLC0415 - an extra
    except ModuleNotFoundError:
        raise PermanentError(
            "brokers are announced and found with the package 'zeroconf', which is not installed",
            hint=f"install it with: {install_command('lan')}",
        ) from None
