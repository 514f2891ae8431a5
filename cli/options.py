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
"""Where the dataset is if nobody says."""

MODELS = Path("models")
"""Where the versions of the model are if nobody says."""
FEATURES = Path(".cache/features")
"""Where embeddings of photos are kept if nobody says."""

_PORTS = 65535
_PERSON_LENGTH = 128


def add_broker(parser: ArgumentParser, *, config_help: str = "file with a [broker] table") -> None:
    """Add where the broker is."""
    parser.add_argument("--config", metavar="TOML", type=Path, help=f"{config_help}; options override it")
    parser.add_argument(
        "--broker", metavar="HOST[:PORT]", type=address, help="the MQTT broker (127.0.0.1:1883)"
    )
    parser.add_argument("--username", help=f"its password comes from {config.PASSWORD_VARIABLE}")
    parser.add_argument("--ca", metavar="PEM", type=_file, help="TLS: certificate of the broker's authority")
    parser.add_argument("--cert", metavar="PEM", type=_file, help="TLS: our certificate")
    parser.add_argument("--key", metavar="PEM", type=_file, help="TLS: our private key")


def add_service(parser: ArgumentParser) -> None:
    """Add what every long-running command takes."""
    parser.add_argument("--log-level", choices=log.LEVELS, default="info")
    add_broker(parser, config_help="configuration file")


def add_dataset(parser: ArgumentParser) -> None:
    """Add where the dataset is."""
    parser.add_argument("--dataset", default=DATASET, help=f"folder or URL of the table ({DATASET})")


def add_models(parser: ArgumentParser) -> None:
    """Add where the versions are."""
    parser.add_argument(
        "--out", type=Path, default=MODELS, metavar="DIR", help=f"folder of the versions ({MODELS})"
    )


def add_features(parser: ArgumentParser) -> None:
    """Add where embeddings of photos are kept."""
    parser.add_argument(
        "--cache", type=Path, default=FEATURES, metavar="DIR", help="keeps features between trainings"
    )


def add_seed(parser: ArgumentParser, of: str = "every random decision") -> None:
    """Add what repeats a run."""
    parser.add_argument("--seed", type=at_least_0(int), default=0, help=f"of {of} (0)")


def name(value: str) -> str:
    """Check a name for a topic."""
    try:
        return check_name(value)
    except TopicError as error:
        raise ArgumentTypeError(str(error)) from None


def names(value: str) -> list[str]:
    """Check comma-separated names for topics; each counts once."""
    return list(dict.fromkeys(name(part) for part in value.split(",")))


def person(value: str) -> str:
    """Check who gives a label."""
    if not 0 < len(value) <= _PERSON_LENGTH:
        raise ArgumentTypeError(f"expected 1 to {_PERSON_LENGTH} characters, got {len(value)}")
    return value


def positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    """Return a check for numbers greater than zero."""

    def check(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = 0
        if not number > 0:
            what = "whole number" if kind is int else "number"
            raise ArgumentTypeError(f"expected a {what} greater than 0, got {text!r}")
        return number

    return check


def at_least_0(kind: Callable[[str], float]) -> Callable[[str], float]:
    """Return a check for numbers from zero on."""

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
    """Check a share of a whole."""
    number = at_least_0(float)(text)
    if number > 1:
        raise ArgumentTypeError(f"expected a share from 0 to 1, got {text!r}")
    return number


def port(text: str) -> int:
    """Check a TCP port."""
    if not (text.isdecimal() and 0 < int(text) <= _PORTS):
        raise ArgumentTypeError(f"expected a port from 1 to {_PORTS}, got {text!r}")
    return int(text)


def broker(arguments: Namespace, base: Broker | None = None) -> Broker:
    """Return the broker that the options describe, over that of a configuration file."""
    chosen = base or config.load(arguments.config, ClientConfig).broker
    if arguments.broker is not None:
        host, port = arguments.broker
        chosen = structs.replace(chosen, host=host, port=port or chosen.port)
    if arguments.username is not None:
        chosen = structs.replace(chosen, username=arguments.username)
    if arguments.key and not arguments.cert:
        raise ConfigError("option --key", expected="--cert beside it", got="none")
    if arguments.ca is not None:
        tls = config.Tls(ca=arguments.ca, certificate=arguments.cert, key=arguments.key)
        chosen = structs.replace(chosen, tls=tls)
    elif arguments.cert:
        raise ConfigError("option --cert", expected="--ca beside it", got="none")
    return chosen


def settings(arguments: Namespace, kind: type[T], **overrides: object) -> T:
    """Return the configuration: the file's, overridden by options that were given, checked as a whole.

    Raises:
        ConfigError: A value is out of its range.
    """
    loaded = config.load(arguments.config, kind)
    chosen = {field: value for field, value in overrides.items() if value is not None}
    return checked(structs.replace(loaded, **chosen, broker=broker(arguments, loaded.broker)))  # type: ignore[attr-defined]  # each service has one


def checked(made: T) -> T:
    """Return what was made from options if each of its values is in its range.

    Raises:
        ConfigError: One is not.
    """
    try:
        return msgspec.convert(msgspec.to_builtins(made), type(made))
    except msgspec.ValidationError as error:
        raise ConfigError("options", expected=f"a valid {type(made).__name__}", got=error) from None


def default_state(service: str) -> str:
    """Return where a service keeps its state if nobody says: `$XDG_STATE_HOME/gleaner/<service>`."""
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    return str(base / "gleaner" / service)


def address(value: str) -> tuple[str, int | None]:
    """Read HOST or HOST:PORT."""
    host, colon, number = value.rpartition(":") if ":" in value else (value, "", "")
    if not host:
        raise ArgumentTypeError(f"expected HOST or HOST:PORT, got {value!r}")
    return host, port(number) if colon else None


def _file(value: str) -> str:
    if not Path(value).is_file():
        raise ArgumentTypeError(f"expected a file, got none at {value!r}")
    return value
