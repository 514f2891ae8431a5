"""Parse the address of a broker as people write it: host names, IPv6 in brackets, and URLs."""

import re
from argparse import ArgumentTypeError
from ipaddress import IPv6Address
from typing import NamedTuple

from bus.config import PASSWORD_VARIABLE, is_host

FORM = "HOST or HOST:PORT (IPv6 in brackets), mqtt://HOST:PORT or mqtts://HOST:PORT"

_TLS_PORT = 8883
_MAX_PORT = 65535
_PORT = re.compile("[0-9]{1,5}")
_QUOTED_CHARS = 40


class BrokerAddress(NamedTuple):
    """Address of a broker.

    Args:
        host: Name or IP address, without brackets.
        port: TCP port; None if it was not given.
        tls: Whether the address asks for TLS.
    """

    host: str
    port: int | None = None
    tls: bool = False


def parse(text: str) -> BrokerAddress:
    """Return the address in a text.

    Raises:
        ArgumentTypeError: It has another form; the sentence has the right one.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "mqtt", text
    if scheme.lower() not in ("mqtt", "mqtts"):
        raise ArgumentTypeError(f"expected {FORM}, got the scheme {scheme!r}")
    if "@" in rest:  # not quoted: it may be a password
        raise ArgumentTypeError(
            f"expected {FORM}, got a user name in it: use --username, and {PASSWORD_VARIABLE} for the "
            "password"
        )
    host, port = _split(rest.removesuffix("/") if separator else rest, text)
    tls = scheme.lower() == "mqtts"
    return BrokerAddress(host, _TLS_PORT if tls and port is None else port, tls)


def _split(rest: str, text: str) -> tuple[str, int | None]:
    if rest.startswith("["):
        host, bracket, after = rest[1:].partition("]")
        host = host.replace("%25", "%", 1)  # before the zone, in a URL: RFC 6874
        if not bracket or not _is_ipv6(host) or (after and not after.startswith(":")):
            raise ArgumentTypeError(f"expected {FORM}, got {text!r}")
        return host, port(after[1:]) if after else None
    if _is_ipv6(rest):  # more than one colon: there is no port in it
        return rest, None
    host, colon, number = rest.partition(":")
    if not is_host(host):
        raise ArgumentTypeError(f"expected {FORM}, got {text!r}")
    return host, port(number) if colon else None


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True


def port(number: str) -> int:
    """Return a TCP port; raises ArgumentTypeError if it is none."""
    # Few digits: Python refuses to convert some thousand of them.
    if not (_PORT.fullmatch(number) and 0 < int(number) <= _MAX_PORT):
        raise ArgumentTypeError(f"expected a port from 1 to {_MAX_PORT}, got {number[:_QUOTED_CHARS]!r}")
    return int(number)
