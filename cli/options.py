"""Options that several commands share."""

import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct, structs

from bus import config, log
from bus.config import Broker, ClientConfig, ConfigError
from schemas.errors import TopicError
from schemas.topics import check_name

T = TypeVar("T", bound=Struct)

DATASET = "dataset.lance"
"""Default dataset path."""

MODELS = Path("models")
"""Default folder of model versions."""

FEATURES = Path(".cache/features")
"""Default folder of the embedding cache."""

_MAX_PORT = 65535
_MAX_PERSON_CHARS = 128


def add_broker(parser: ArgumentParser, *, config_help: str = "file with a [broker] table") -> None:
    """Add the options of the broker connection."""
    parser.add_argument("--config", metavar="TOML", type=Path, help=f"{config_help}; options override it")
    parser.add_argument(
        "--broker", metavar="HOST[:PORT]", type=address, help="MQTT broker (default: 127.0.0.1:1883)"
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
        "--dataset", default=DATASET, help=f"folder or URL of the Lance table (default: {DATASET})"
    )


def add_models(parser: ArgumentParser) -> None:
    """Add the option of the models folder."""
    parser.add_argument(
        "--out",
        type=Path,
        default=MODELS,
        metavar="DIR",
        help=f"folder of model versions (default: {MODELS})",
    )


def add_features(parser: ArgumentParser) -> None:
    """Add the option of the embedding cache."""
    parser.add_argument(
        "--cache", type=Path, default=FEATURES, metavar="DIR", help=f"embedding cache (default: {FEATURES})"
    )


def add_seed(parser: ArgumentParser, of: str = "every random decision") -> None:
    """Add the option of the random seed."""
    parser.add_argument("--seed", type=at_least_0(int), default=0, help=f"seed of {of} (default: 0)")


def name(value: str) -> str:
    """Check a name that is part of a topic."""
    try:
        return check_name(value)
    except TopicError as error:
        raise ArgumentTypeError(str(error)) from None


def names(value: str) -> list[str]:
    """Check comma-separated names that are part of topics, and drop duplicates."""
    # A dict keeps the given order; a set would not.
    return list(dict.fromkeys(name(part) for part in value.split(",")))


def person(value: str) -> str:
    """Check the name of the person who labels."""
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
        return number

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
        return number

    return check


def share(text: str) -> float:
    """Check a fraction."""
    number = at_least_0(float)(text)
    if number > 1:
        raise ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return number


def port(text: str) -> int:
    """Check a TCP port."""
    if not (text.isdecimal() and 0 < int(text) <= _MAX_PORT):
        raise ArgumentTypeError(f"expected a port from 1 to {_MAX_PORT}, got {text!r}")
    return int(text)


def broker(arguments: Namespace, base: Broker | None = None) -> Broker:
    """Return the broker of the configuration file, overridden by the options.

    Raises:
        ConfigError: The options of TLS are incomplete.
    """
    chosen = base or config.load(arguments.config, ClientConfig).broker
    if arguments.broker is not None:
        host, port = arguments.broker
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
    return chosen


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
        return msgspec.convert(msgspec.to_builtins(built), type(built))
    except msgspec.ValidationError as error:
        raise ConfigError("options", expected=f"a valid {type(built).__name__}", got=error) from None


def default_state(service: str) -> str:
    """Return the default state folder of a service: `$XDG_STATE_HOME/gleaner/<service>`."""
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    return str(base / "gleaner" / service)


def address(value: str) -> tuple[str, int | None]:
    """Parse HOST or HOST:PORT."""
    # The port is after the last colon: a bracketed IPv6 address has colons too.
    host, colon, number = value.rpartition(":") if ":" in value else (value, "", "")
    if not host:
        raise ArgumentTypeError(f"expected HOST or HOST:PORT, got {value!r}")
    return host, port(number) if colon else None


def _file(value: str) -> str:
    if not Path(value).is_file():
        raise ArgumentTypeError(f"there is no file {value!r}")
    return value
