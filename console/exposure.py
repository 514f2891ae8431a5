"""Where the console may listen: beyond this machine only with protection."""

import ipaddress

from console.config import ConsoleConfig
from schemas.errors import PermanentError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def check_exposure(config: ConsoleConfig) -> None:
    """Refuse a configuration that would show photos to a network without protection.

    Raises:
        PermanentError: Something is missing; the message names it.
    """
    if is_loopback(_host(config)):
        return
    if config.accounts is None and config.proxy is None:
        raise PermanentError(
            f"cannot serve the console on {config.listen} without accounts: the whole network could use it",
            hint="set `accounts`, or listen on 127.0.0.1",
        )
    if config.tls is None and config.proxy is None:
        raise PermanentError(
            f"cannot serve the console on {config.listen} without TLS: the network could read passwords",
            hint="set [tls], or listen on 127.0.0.1 behind a reverse proxy",
        )


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def hosts_of(config: ConsoleConfig) -> list[str]:
    """Return the names under which the console may be addressed, in lower case."""
    names = [*config.hosts, *_LOOPBACK, _host(config)]
    return sorted({name.lower().strip("[]") for name in names})


def _host(config: ConsoleConfig) -> str:
    return config.listen.rpartition(":")[0].strip("[]")
