"""Load a TOML file into a frozen Struct. It is read once, at start-up, and passed to what needs it.

Unknown fields are errors, so that a misspelt limit does not silently become a default. Secrets come only from
the environment: `GLEANER_MQTT_PASSWORD`.
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
        pattern=r"^[^ ]+:[0-9]{1,5}$",
        description="HOST:PORT of the health endpoints /livez and /readyz; not served if absent",
    ),
]
PASSWORD_VARIABLE = "GLEANER_MQTT_PASSWORD"  # noqa: S105  # a variable's name, not a password


class ConfigError(PermanentError):
    """A configuration file or option that cannot be used."""


class Tls(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files for TLS with the broker, as paths of PEM files."""

    ca: Annotated[str, Meta(description="certificate of the CA that signed the broker's certificate")]
    certificate: Annotated[
        str | None, Meta(description="client certificate of this component; none if absent")
    ] = None
    key: Annotated[str | None, Meta(description="private key of the client certificate")] = None


class Broker(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Address of the MQTT broker and credentials."""

    host: Annotated[str, Meta(min_length=1, description="host name or IP address")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="TCP port")] = 1883
    username: Annotated[
        str | None,
        Meta(description=f"user name; the password is read from the environment: {PASSWORD_VARIABLE}"),
    ] = None
    keepalive_s: Annotated[
        int,
        Meta(
            ge=5, le=3600, description="MQTT keep-alive in seconds; a silent connection ends after 1.5 times"
        ),
    ] = 30
    tls: Annotated[Tls | None, Meta(description="unencrypted if absent")] = None


class ClientConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration file of a command that is only a client of the broker."""

    broker: Broker = Broker()


class OutboxLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of an outbox, and when it sends again."""

    max_bytes: Annotated[int, Meta(ge=1, description="most payload bytes on disk")] = 1_000_000_000
    max_messages: Annotated[int, Meta(ge=1, description="most messages on disk")] = 100_000
    when_full: Annotated[
        str,
        Meta(
            pattern="^(refuse|drop-oldest)$",
            description="`refuse` new messages, or `drop-oldest` of those not yet sent",
        ),
    ] = "refuse"
    min_free_bytes: Annotated[
        int, Meta(ge=0, description="with less free space on the disk, new messages are refused")
    ] = 64_000_000
    window: Annotated[int, Meta(ge=1, le=10_000, description="most messages sent and not yet answered")] = 64
    backlog_share: Annotated[
        float, Meta(gt=0, le=1, description="largest share of the window for backlog messages")
    ] = 0.25
    live_s: Annotated[float, Meta(ge=1, description="age in seconds from which a message is backlog")] = 60.0
    resend_first_s: Annotated[
        float, Meta(gt=0, description="first wait for an answer before sending again, in seconds")
    ] = 5.0
    resend_cap_s: Annotated[
        float, Meta(gt=0, description="longest wait for an answer before sending again, in seconds")
    ] = 60.0


def load(path: Path | None, kind: type[T]) -> T:
    """Return the configuration in a TOML file, or the defaults without a path.

    Raises:
        ConfigError: The file cannot be read, is not TOML, or has an invalid or unknown field.
    """
    if path is None:
        return kind()
    try:
        return msgspec.toml.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise ConfigError(f"cannot read configuration {path}: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError) as error:  # ValueError: not UTF-8
        raise ConfigError(f"configuration {path} is invalid: {error}") from None


def password() -> str | None:
    """Return the broker password from the environment, None if it is not set."""
    return os.environ.get(PASSWORD_VARIABLE)
