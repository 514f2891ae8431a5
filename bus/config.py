"""Load a TOML file into a frozen Struct. It is read once, at start-up, and passed to what needs it.

Unknown fields are errors, so that a misspelt limit does not silently become a default. The password is in no
configuration: it is read from the environment, from a file, or from systemd's credentials.
"""

import os
import re
from collections.abc import Mapping
from ipaddress import IPv6Address
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from bus import config_fields
from schemas.errors import PermanentError

T = TypeVar("T", bound=Struct)

Port = Annotated[int, Meta(ge=1, le=65535)]
HealthAddress = Annotated[
    str,
    Meta(
        pattern=r"^[^ ]+:[0-9]{1,5}$",
        description="HOST:PORT of /livez, /readyz and /metrics, which are not served if absent",
    ),
]
PASSWORD_VARIABLE = "GLEANER_MQTT_PASSWORD"  # noqa: S105  # a variable's name, not a password


_QUOTED_CHARS = 80
_HOST_NAME = re.compile(r"[^\s\[\]:/@?#]+")
CREDENTIAL = "mqtt-password"
"""Name of the systemd credential with the password."""


class ConfigError(PermanentError):
    """A configuration file or option that cannot be used."""


class Tls(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files for TLS with the broker, as paths of PEM files."""

    ca: Annotated[str, Meta(description="certificate of the CA that signed the broker's certificate")]
    certificate: Annotated[
        str | None, Meta(description="client certificate of this component; none if absent")
    ] = None
    key: Annotated[str | None, Meta(description="private key of the client certificate")] = None
    crl: Annotated[
        str | None,
        Meta(
            description="revoked certificates, a list of each CA, as in `revoked.crl`; a broker with "
            "one of them is refused. Read again for each connection. Not checked if absent"
        ),
    ] = None


class Broker(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Address of the MQTT broker and credentials."""

    host: Annotated[str, Meta(min_length=1, description="host name or IP address")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="TCP port")] = 1883
    username: Annotated[
        str | None,
        Meta(description=f"user name; the password is read from the environment: {PASSWORD_VARIABLE}"),
    ] = None
    password_file: Annotated[
        str | None,
        Meta(
            description=f"file with the password; absent: {PASSWORD_VARIABLE}, or systemd's credential "
            f"`{CREDENTIAL}`"
        ),
    ] = None
    keepalive_s: Annotated[
        int,
        Meta(
            ge=5, le=3600, description="MQTT keep-alive in seconds; a silent connection ends after 1.5 times"
        ),
    ] = 30
    tls: Annotated[Tls | None, Meta(description="unencrypted if absent")] = None

    def __post_init__(self) -> None:
        """Refuse a host that no resolver takes; raises ConfigError."""
        if not is_host(self.host):
            raise ConfigError(
                "broker.host",
                expected="a host name or an IP address",
                got=repr(self.host[:_QUOTED_CHARS]),
                hint="the port belongs in `port`, and TLS in the table [broker.tls]",
            )


def is_host(text: str) -> bool:
    """Return whether a text can be a host: an IP address, IPv6 also in brackets, or a name.

    Checked before it is resolved: Python's resolver raises UnicodeError for a name with an empty part or one
    of more than 63 characters, and not OSError.
    """
    try:
        IPv6Address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        pass
    else:
        return text.startswith("[") == text.endswith("]")
    try:
        return _HOST_NAME.fullmatch(text) is not None and text.isprintable() and bool(text.encode("idna"))
    except UnicodeError:
        return False


def host_and_port(address: str) -> tuple[str, int]:
    """Return the parts of HOST:PORT, where to listen; an IPv6 address may be in brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


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
    return kind() if path is None else convert(read_fields(path), kind, path)


def read_fields(path: Path) -> dict[str, Any]:
    """Return the fields of a TOML file.

    Raises:
        ConfigError: The file cannot be read or is not TOML.
    """
    try:
        fields: dict[str, Any] = msgspec.toml.decode(_text(path.read_bytes()))
    except OSError as error:
        raise ConfigError(f"cannot read configuration {path}: {error.strerror}") from None
    except RecursionError:
        raise ConfigError(f"configuration {path} is invalid: nested too deeply") from None
    except (msgspec.MsgspecError, PermanentError, ValueError) as error:
        raise ConfigError(f"configuration {path} is invalid: {error}") from None
    return fields


def _text(content: bytes) -> str:
    """Return the text of a configuration, without the byte order mark that some editors write.

    Raises:
        ConfigError: It is not UTF-8.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"line {line} is not UTF-8", hint="save the file as UTF-8") from None
    if "\0" in text:
        raise ConfigError("it is not text, or UTF-16 or UTF-32", hint="save the file as UTF-8")
    return text


def convert(fields: Mapping[str, Any], kind: type[T], path: Path) -> T:
    """Return the configuration with the fields of a file.

    Raises:
        ConfigError: A field is unknown or invalid.
    """
    try:
        converted: T = config_fields.convert(fields, kind)
    except (PermanentError, ValueError) as error:
        raise ConfigError(f"configuration {path} is invalid: {error}") from None
    return converted


def password(broker: Broker | None = None) -> str | None:
    """Return the broker's password; None if there is none.

    The first of these that is set: the variable `GLEANER_MQTT_PASSWORD`, the file that the configuration
    names, systemd's credential `mqtt-password` (`LoadCredential=` of the unit).

    Raises:
        ConfigError: The file that the configuration names cannot be read or is empty.
    """
    if (given := os.environ.get(PASSWORD_VARIABLE)) is not None:
        return given
    if broker is not None and broker.password_file is not None:
        return _read_password(Path(broker.password_file))
    credential = Path(os.environ.get("CREDENTIALS_DIRECTORY", "")) / CREDENTIAL
    if "CREDENTIALS_DIRECTORY" in os.environ and credential.is_file():
        return _read_password(credential)
    return None


def _read_password(path: Path) -> str:
    try:
        # Editors of Windows write a byte order mark, and end lines with two characters.
        found = path.read_bytes().decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the password in {path}: {error}") from None
    if not found:
        raise ConfigError(f"the password file {path} is empty")
    return found
