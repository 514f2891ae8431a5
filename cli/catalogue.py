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
    direct = (_log_event(module, call) for module, call in _calls())
    return sorted({named for named in (*direct, *_events_of_chosen_level()) if named is not None})


def counters() -> list[Named]:
    """Return each counter of a Status, by name."""
    return sorted({named for module, call in _calls() if (named := _counter(module, call)) is not None})


@cache  # parsing the source takes seconds, and several lists are made of it
def _nodes() -> dict[str, tuple[ast.AST, ...]]:
    paths = [path for package in _PACKAGES for path in sorted((_ROOT / package).rglob("*.py"))]
    return {
        path.relative_to(_ROOT).as_posix(): tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        for path in paths
    }


def _calls() -> Iterator[tuple[str, ast.Call]]:
    for module, nodes in _nodes().items():
        for node in nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                yield module, node


def _events_of_chosen_level() -> Iterator[Named]:
    """Yield the events of `level("event")`, where `level` was assigned one of several methods of the log."""
    for module, nodes in _nodes().items():
        levels: dict[str, set[str]] = {}
        for node in nodes:
            if isinstance(node, ast.Assign) and isinstance(target := node.targets[0], ast.Name):
                levels.setdefault(target.id, set()).update(_levels_in(node.value))
        for node in nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                chosen, name = levels.get(node.func.id), _name(node.args[0])
                if chosen and name:
                    yield Named(name, " or ".join(sorted(chosen, key=_LEVELS.index)), module)


def _levels_in(value: ast.expr) -> Iterator[str]:
    for node in ast.walk(value):
        if isinstance(node, ast.Attribute) and _is_logger(node.value) and node.attr in _LEVELS:
            yield node.attr


def _is_logger(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("log", "logger")


def _log_event(module: str, call: ast.Call) -> Named | None:
    assert isinstance(call.func, ast.Attribute)
    level, logger, name = call.func.attr, call.func.value, _name(call.args[0])
    return Named(name, level, module) if _is_logger(logger) and level in _LEVELS and name else None


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
