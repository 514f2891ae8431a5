"""List the log events and counters of all components, read from their source."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("bus", "cli", "cloud", "console", "device", "edge")
_LEVELS = ("debug", "info", "warning", "error", "exception")


class Named(NamedTuple):
    """A log event with its level, or a counter without one, and the module that has it."""

    name: str
    level: str
    module: str


def log_events() -> list[Named]:
    """Return each event that is logged, by name."""
    return sorted({named for module, call in _calls() if (named := _log_event(module, call)) is not None})


def counters() -> list[Named]:
    """Return each counter of a Status, by name."""
    return sorted({named for module, call in _calls() if (named := _counter(module, call)) is not None})


@cache  # parsing the source takes seconds, and two tables are made of it
def _calls() -> tuple[tuple[str, ast.Call], ...]:
    return tuple(_find_calls())


def _find_calls() -> Iterator[tuple[str, ast.Call]]:
    for package in _PACKAGES:
        for path in sorted((_ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                    yield _shown(path), node


def _shown(path: Path) -> str:
    return path.relative_to(_ROOT).as_posix()


def _log_event(module: str, call: ast.Call) -> Named | None:
    assert isinstance(call.func, ast.Attribute)
    level, logger, name = call.func.attr, call.func.value, _name(call.args[0])
    is_logger = isinstance(logger, ast.Name) and logger.id in ("log", "logger")
    return Named(name, level, module) if is_logger and level in _LEVELS and name else None


def _counter(module: str, call: ast.Call) -> Named | None:
    assert isinstance(call.func, ast.Attribute)
    owner = call.func.value
    holder = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
    name = _name(call.args[0])
    return Named(name, "", module) if call.func.attr == "add" and "counters" in holder and name else None


def _name(argument: ast.expr) -> str:
    """Return a dotted name, with `…` for a part that is known at run time; empty for anything else."""
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        text = argument.value
    elif isinstance(argument, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "…" for part in argument.values)
        text = "".join(map(str, parts))
    else:
        return ""
    return text if "." in text and " " not in text else ""
