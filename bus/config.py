"""Configuration: a TOML file becomes one frozen Struct, read once, passed down.

Unknown fields are refused, so that a misspelt limit is an error and not a default. Secrets come from the
environment alone: `GLEANER_MQTT_PASSWORD`.
"""

import os
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from schemas.errors import PermanentError

T = TypeVar("T", bound=Struct)

Port = Annotated[int, Meta(ge=1, le=65535)]
HealthAddress = Annotated[
    str,
    Meta(
        pattern=r"^[^ ]+:[0-9]{1,5}$", description="HOST:PORT for GET /livez and /readyz; no probes if absent"
    ),
]
PASSWORD_VARIABLE = "GLEANER_MQTT_PASSWORD"  # noqa: S105  # the name of a variable


class ConfigError(PermanentError):
    """A configuration file that cannot be used."""


class Tls(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the broker proves who it is, and this component to it. Paths of PEM files."""

    ca: Annotated[str, Meta(description="certificate of the authority that signed the broker's")]
    certificate: Annotated[str | None, Meta(description="this component's certificate")] = None
    key: Annotated[str | None, Meta(description="its private key")] = None


class Broker(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the MQTT broker is and how to log in."""

    host: Annotated[str, Meta(min_length=1, description="name or address")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="TCP port")] = 1883
    username: Annotated[
        str | None, Meta(description=f"the password comes from {PASSWORD_VARIABLE} in the environment")
    ] = None
    keepalive_s: Annotated[
        int, Meta(ge=5, le=3600, description="a silent link is given up after 1.5 times this")
    ] = 30
    tls: Annotated[Tls | None, Meta(description="unencrypted if absent")] = None


class ClientConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a tool reads from TOML."""

    broker: Broker = Broker()


class OutboxLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds and pace of an outbox."""

    max_bytes: Annotated[int, Meta(ge=1, description="payload bytes kept on disk")] = 1_000_000_000
    max_messages: Annotated[int, Meta(ge=1, description="messages kept on disk")] = 100_000
    when_full: Annotated[
        str, Meta(pattern="^(refuse|drop-oldest)$", description="`refuse` new work or `drop-oldest`")
    ] = "refuse"
    min_free_bytes: Annotated[
        int, Meta(ge=0, description="space left alone on the disk; with less, new work is refused")
    ] = 64_000_000
    window: Annotated[int, Meta(ge=1, le=10_000, description="messages sent and not yet answered")] = 64
    backlog_share: Annotated[
        float, Meta(gt=0, le=1, description="most of the window that old messages may take")
    ] = 0.25
    live_s: Annotated[float, Meta(ge=1, description="older than this is backlog, in seconds")] = 60.0
    resend_first_s: Annotated[float, Meta(gt=0, description="first wait for an answer, in seconds")] = 5.0
    resend_cap_s: Annotated[float, Meta(gt=0, description="longest wait for an answer, in seconds")] = 60.0


def load(path: Path | None, kind: type[T]) -> T:
    """Return the configuration in a TOML file; all defaults where there is no path.

    Raises:
        ConfigError: The file cannot be read, is no TOML, or has a wrong or unknown field.
    """
    if path is None:
        return kind()
    try:
        return msgspec.toml.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise ConfigError(f"configuration {path}", expected="a readable file", got=error.strerror) from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigError(f"configuration {path}", expected=f"a valid {kind.__name__}", got=error) from None


def password() -> str | None:
    """Return the broker's password from the environment, if there is one."""
    return os.environ.get(PASSWORD_VARIABLE)
