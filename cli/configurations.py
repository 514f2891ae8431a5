"""Recognise a configuration file of any service, and find the one of this machine."""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bus import config, config_fields
from bus.config import Broker, ClientConfig
from bus.files.cache_folder import home

KINDS = {
    "edge": ("edge.config", "EdgeConfig", "gleaner edge"),
    "device": ("device.config", "DeviceConfig", "gleaner device"),
    "collector": ("cloud.collector.config", "CollectorConfig", "gleaner cloud collect"),
    "trainer": ("cloud.retraining.config", "TrainerConfig", "gleaner cloud watch"),
    "console": ("console.config", "ConsoleConfig", "gleaner console"),
    "gateway": ("bus.gateway.config", "GatewayConfig", "gleaner gateway"),
    "notify": ("bus.notifications.config", "NotifyConfig", "gleaner notify"),
    "client": ("bus.config", "ClientConfig", "doctor, send, tail and the like"),
    "rules": ("schemas.policy_rules", "HarvestRules", "gleaner cloud policy --set"),
}
"""Module, class and use of each kind; files of a kind are usually called `<kind>.toml`."""

_SERVICES = ("edge", "device", "collector", "trainer", "console", "gateway", "notify")
VARIABLE = "GLEANER_CONFIG"


class Recognised(NamedTuple):
    """A configuration with its kind, a key of `KINDS`."""

    kind: str
    value: Any

    @property
    def broker(self) -> Broker:
        """The broker that it names, or the default one."""
        found: Broker = getattr(self.value, "broker", Broker())
        return found


def type_of(kind: str) -> type[msgspec.Struct]:
    """Return the class of a kind.

    Raises:
        ModuleNotFoundError: Its extra is not installed.
    """
    module, name, _ = KINDS[kind]
    found: type[msgspec.Struct] = getattr(importlib.import_module(module), name)
    return found


def recognise(path: Path, kind: str | None = None) -> Recognised:
    """Load a configuration of a given kind, or of the kind that follows from its name or its fields.

    Raises:
        ConfigError: It cannot be read, or a field is unknown or invalid.
    """
    fields = config.read_fields(path)
    chosen = kind or _kind_of(path, fields)
    return Recognised(chosen, config.convert(fields, type_of(chosen), path))


def _kind_of(path: Path, fields: dict[str, Any]) -> str:
    """Return the kind with most of the fields: with a misspelt one, its error is the most helpful."""
    if path.stem in KINDS:
        return path.stem
    return max(_installed(), key=lambda kind: (_known(fields, kind), kind == "client"))


def _known(fields: dict[str, Any], kind: str) -> int:
    known = msgspec.structs.fields(type_of(kind))
    names = {field.encode_name for field in known}
    fits = config_fields.problem(fields, type_of(kind)) is None
    return len(names & fields.keys()) + 100 * fits


def _installed() -> Iterator[str]:
    for kind in KINDS:
        try:
            type_of(kind)
        except ModuleNotFoundError:
            continue
        yield kind


def usual_places() -> list[Path]:
    """Return the files that exist of those that a client command looks for, first the one that it takes."""
    if (named := os.environ.get(VARIABLE)) is not None:
        return [Path(named)]
    own = Path(os.environ.get("XDG_CONFIG_HOME") or home() / ".config") / "gleaner"
    found = (
        folder / f"{kind}.toml" for folder in (own, Path("/etc/gleaner")) for kind in ("client", *_SERVICES)
    )
    return [path for path in found if _is_readable(path)]


def _is_readable(path: Path) -> bool:
    """Return False also for a file in a folder that this user may not enter, such as another's home."""
    try:
        return path.is_file()
    except OSError:
        return False


def for_client(path: Path | None) -> Recognised:
    """Return the configuration for a client command: the given file, else the one of this machine.

    Raises:
        ConfigError: The file cannot be used.
    """
    if path is None:
        path = next(iter(usual_places()), None)
    return Recognised("client", ClientConfig()) if path is None else recognise(path)
