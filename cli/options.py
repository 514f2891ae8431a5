"""Options that several commands share."""

import os
from argparse import ArgumentParser, ArgumentTypeError, BooleanOptionalAction, Namespace
from collections.abc import Callable
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct, structs

from bus import config, config_fields, log
from bus.config import Broker, ClientConfig, ConfigError
from bus.files.cache_folder import default_cache, home
from cli import broker_address
from cli.configurations import Recognised, for_client
from schemas.class_names import ClassNameError, class_name
from schemas.errors import TopicError
from schemas.topics import check_device_name, check_name, check_node_name

T = TypeVar("T", bound=Struct)

DATASET = "dataset.lance"
"""Default dataset path."""

MODELS = Path("models")
"""Default folder of model versions."""

FEATURES = default_cache() / "features"
"""Default folder of the embedding cache, in the user's cache and not in the working folder."""
SHOWN_FEATURES = "~/.cache/gleaner/features"

_MAX_PERSON_CHARS = 128
_MAX_PORT = 65_535
_MAX_WHOLE = 2**53


def add_broker(
    parser: ArgumentParser,
    *,
    config_help: str = "configuration of any service or client (default: this machine's)",
) -> None:
    """Add the options of the broker connection."""
    parser.add_argument("--config", metavar="TOML", type=Path, help=f"{config_help}; options override it")
    parser.add_argument(
        "--broker",
        metavar="HOST[:PORT]",
        type=broker_address.parse,
        help="MQTT broker, also as mqtt:// or mqtts:// URL (default: 127.0.0.1:1883)",
    )
    parser.add_argument("--username", help=f"MQTT user; the password is read from {config.PASSWORD_VARIABLE}")
    parser.add_argument("--ca", metavar="PEM", type=_file, help="TLS: CA certificate of the broker")
    parser.add_argument("--cert", metavar="PEM", type=_file, help="TLS: client certificate")
    parser.add_argument("--key", metavar="PEM", type=_file, help="TLS: client private key")


def add_service(parser: ArgumentParser) -> None:
    """Add the options of every long-running command."""
    parser.add_argument("--log-level", choices=log.LEVELS, default="info")
    add_broker(parser, config_help="configuration file")


def add_dataset(parser: ArgumentParser) -> None:
    """Add the option of the dataset."""
    parser.add_argument(
        "--dataset",
        type=place,
        default=DATASET,
        help=f"folder or URL of the Lance table (default: {DATASET})",
    )


def add_models(parser: ArgumentParser) -> None:
    """Add the option of the models folder."""
    parser.add_argument(
        "--out",
        type=folder,
        default=MODELS,
        metavar="DIR",
        help=f"folder of model versions (default: {MODELS})",
    )


def add_features(parser: ArgumentParser) -> None:
    """Add the option of the embedding cache."""
    parser.add_argument(
        "--cache",
        type=folder,
        default=FEATURES,
        metavar="DIR",
        help=f"embedding cache (default: {SHOWN_FEATURES})",
    )


def add_seed(parser: ArgumentParser, of: str = "every random decision") -> None:
    """Add the option of the random seed."""
    parser.add_argument("--seed", type=at_least_0(int), default=0, help=f"seed of {of} (default: 0)")


def add_tflite(parser: ArgumentParser, purpose: str) -> None:
    """Declare whether the variants for LiteRT are written; `purpose` ends the help."""
    parser.add_argument(
        "--tflite",
        action=BooleanOptionalAction,
        default=True,
        help=f"write the LiteRT variants too, {purpose}",
    )


def place(value: str) -> str:
    """Check a path or URL: an empty one, as of a variable that is not set, would be the working folder."""
    if not value.strip():
        raise ArgumentTypeError("expected a path, got an empty text")
    return value


def folder(value: str) -> Path:
    """Check a path; see `place`."""
    return Path(place(value))


def name(value: str) -> str:
    """Check a name that is part of a topic."""
    return _named(check_name, value)


def node(value: str) -> str:
    """Check the name of an edge node."""
    return _named(check_node_name, value)


def device(value: str) -> str:
    """Check the name of a device."""
    return _named(check_device_name, value)


def names(value: str) -> list[str]:
    """Check comma-separated names that are part of topics, and drop duplicates."""
    # A dict keeps the given order; a set would not.
    return list(dict.fromkeys(name(part) for part in value.split(",")))


def nodes(value: str) -> list[str]:
    """Check comma-separated names of edge nodes, and drop duplicates."""
    return [node(part) for part in names(value)]


def _named(check: Callable[[str], str], value: str) -> str:
    try:
        return check(value)
    except TopicError as error:
        raise ArgumentTypeError(str(error)) from None


def class_label(value: str) -> str:
    """Check the name of a class, or of none of them."""
    try:
        return class_name(value)
    except ClassNameError as error:
        raise ArgumentTypeError(str(error)) from None


def class_names(value: str) -> tuple[str, ...]:
    """Check comma-separated names of classes."""
    try:
        return tuple(class_name(part) for part in value.split(","))
    except ClassNameError as error:
        raise ArgumentTypeError(str(error)) from None


def person(value: str) -> str:
    """Check the name of the labelling person."""
    if not 0 < len(value) <= _MAX_PERSON_CHARS:
        raise ArgumentTypeError(f"expected 1 to {_MAX_PERSON_CHARS} characters, got {len(value)}")
    return value


def positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    """Return an argparse type for numbers greater than 0."""

    def check(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = 0
        if not number > 0:  # also refuses nan, which `number <= 0` would let through
            what = "whole number" if kind is int else "number"
            raise ArgumentTypeError(f"expected a {what} greater than 0, got {text!r}")
        return _bounded(number)

    return check


def at_least_0(kind: Callable[[str], float]) -> Callable[[str], float]:
    """Return an argparse type for finite numbers of at least 0."""

    def check(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = -1
        if not 0 <= number < inf:
            raise ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
        return _bounded(number)

    return check


def _bounded(number: float) -> float:
    """Return a number if libraries with integers of 64 bits take it: below the limit of the contract."""
    if isinstance(number, int) and number > _MAX_WHOLE:
        raise ArgumentTypeError(f"expected at most {_MAX_WHOLE}, got {number}")
    return number


def utc_ms(text: str) -> int:
    """Parse a date or a time in ISO 8601, UTC unless it has another offset, as milliseconds since 1970."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"expected a date such as 2026-01-31, got {text!r}") from None
    return int(parsed.replace(tzinfo=parsed.tzinfo or UTC).timestamp() * 1000)


def camera(text: str) -> tuple[str, str]:
    """Parse NODE/DEVICE."""
    node, slash, device = text.partition("/")
    if not slash:
        raise ArgumentTypeError(f"expected NODE/DEVICE, such as edge-1/pi-1, got {text!r}")
    return name(node), name(device)


def listen_address(text: str) -> str:
    """Check HOST:PORT, where to listen."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal() and int(port[:6]) <= _MAX_PORT):
        raise ArgumentTypeError(f"expected HOST:PORT, got {text!r}")
    return text


def share(text: str) -> float:
    """Check a fraction."""
    number = at_least_0(float)(text)
    if number > 1:
        raise ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return number


def broker(arguments: Namespace, base: Broker | None = None) -> Broker:
    """Return the broker of the configuration file, overridden by the options.

    Raises:
        ConfigError: The options of TLS are incomplete.
    """
    chosen = base or own_configuration(arguments).broker
    if arguments.broker is not None:
        host, port, _ = arguments.broker
        chosen = structs.replace(chosen, host=host, port=port or chosen.port)
    if arguments.username is not None:
        chosen = structs.replace(chosen, username=arguments.username)
    if arguments.key and not arguments.cert:
        raise ConfigError("option --key needs --cert")
    if arguments.ca is not None:
        tls = config.Tls(ca=arguments.ca, certificate=arguments.cert, key=arguments.key)
        chosen = structs.replace(chosen, tls=tls)
    elif arguments.cert:
        raise ConfigError("option --cert needs --ca")  # without it the connection would not use TLS at all
    if arguments.broker is not None and arguments.broker.tls and chosen.tls is None:
        raise ConfigError("a broker address with mqtts:// needs --ca")
    return chosen


def own_configuration(arguments: Namespace) -> Recognised:
    """Return the configuration that a client command uses: the given one, or this machine's.

    With `--broker` and without a file it is empty.

    Raises:
        ConfigError: It cannot be used.
    """
    if arguments.config is None and arguments.broker is not None:
        return Recognised("client", ClientConfig())
    return for_client(arguments.config)


def own_node(arguments: Namespace) -> str:
    """Return the node of the configuration that a client command uses, or `edge-1`."""
    found: str = getattr(own_configuration(arguments).value, "node", "edge-1")
    return found


def settings(arguments: Namespace, kind: type[T], **overrides: object) -> T:
    """Return the configuration of the file, overridden by the options that were given.

    Raises:
        ConfigError: A value is out of its range.
    """
    loaded = config.load(arguments.config, kind)
    # None means that the option was not given; a given 0 must override the file.
    chosen = {field: value for field, value in overrides.items() if value is not None}
    return checked(structs.replace(loaded, **chosen, broker=broker(arguments, loaded.broker)))  # type: ignore[attr-defined]  # every service configuration has it


def checked(built: T) -> T:
    """Return a struct that was built from options, after checking the range of each value.

    Raises:
        ConfigError: A value is out of its range.
    """
    # msgspec checks the constraints of fields only when it decodes, so encode and decode once.
    try:
        converted: T = config_fields.convert(msgspec.to_builtins(built), type(built))
    except ValueError as error:
        raise ConfigError(f"the options are invalid: {error}") from None
    return converted


def add_state(parser: ArgumentParser, service: str, what: str) -> None:
    """Add the option of a service's state folder."""
    parser.add_argument(
        "--state-dir",
        metavar="DIR",
        help=f"folder for {what} (default: ~/.local/state/gleaner/{service}, or /var/lib/gleaner/{service} "
        "with --config)",
    )


def default_state(service: str) -> str:
    """Return the default state folder of a service: `$XDG_STATE_HOME/gleaner/<service>`."""
    base = Path(os.environ.get("XDG_STATE_HOME") or home() / ".local/state")
    return str(base / "gleaner" / service)


def address(value: str) -> tuple[str, int | None]:
    """Parse HOST or HOST:PORT."""
    host, number, _ = broker_address.parse(value)
    if "://" in value:
        raise ArgumentTypeError(f"expected HOST or HOST:PORT, got {value!r}")
    return host, number


def _file(value: str) -> str:
    if not Path(value).is_file():
        raise ArgumentTypeError(f"there is no file {value!r}")
    return value
