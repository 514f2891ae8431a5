"""Every published event is an EventName with a documented meaning."""

import ast
from collections.abc import Iterator
from pathlib import Path

import msgspec

from schemas.contract import asyncapi
from schemas.events import MEANINGS, EventName
from schemas.messages import Event
from tests.conftest import ROOT

SOURCES = sorted(
    path for side in ("bus", "edge", "cloud", "device", "cli") for path in (ROOT / side).rglob("*.py")
)


def imports_event(module: ast.Module) -> bool:
    """Return True if a module imports the message Event, not for example asyncio's."""
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == "schemas.messages"
        and any(alias.name == "Event" and alias.asname is None for alias in node.names)
        for node in ast.walk(module)
    )


def functions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def is_event_name(value: ast.expr, function: ast.FunctionDef | ast.AsyncFunctionDef, table: set[str]) -> bool:
    """Return True for `EventName.X`, a parameter of type EventName, or an entry of a table of EventNames."""
    if isinstance(value, ast.Attribute):
        return ast.unparse(value.value) == "EventName"
    if isinstance(value, ast.Name):
        parameters = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        return any(
            parameter.arg == value.id
            and parameter.annotation is not None
            and ast.unparse(parameter.annotation) == "EventName"
            for parameter in parameters
        )
    if isinstance(value, ast.Subscript):
        return ast.unparse(value.value) in table
    return False


def tables_of_event_names(module: ast.Module) -> set[str]:
    """Return the names of the module's dictionaries whose values are all `EventName.X`."""
    return {
        ast.unparse(target)
        for node in module.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and isinstance(node.value, ast.Dict)
        and all(ast.unparse(value).startswith("EventName.") for value in node.value.values)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    }


def test_events_are_built_only_with_event_names():
    """`Event(event=...)` gets an EventName everywhere; mypy checks that parameters of that type do."""
    wrong, built = [], 0
    for path in SOURCES:
        module = ast.parse(path.read_text(encoding="utf-8"))
        if not imports_event(module):
            continue
        tables = tables_of_event_names(module)
        for function in functions(module):
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "Event":
                    built += 1
                    event = next((keyword.value for keyword in call.keywords if keyword.arg == "event"), None)
                    if event is None or not is_event_name(event, function, tables):
                        wrong.append(f"{path.relative_to(ROOT)}:{call.lineno}")
    assert wrong == []
    assert built >= 5


def test_every_event_name_is_published():
    """Each member of EventName is used outside its definition."""
    used = {
        node.attr
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "EventName"
    }
    assert used == set(EventName.__members__)


def names_log_or_counter(call: ast.Call) -> bool:
    """Return True for a log line or a counter, which may have the name of an event."""
    function = ast.unparse(call.func)
    return function.split(".")[0] in ("log", "level") or function.endswith("counters.add")


def test_no_event_name_is_written_as_text():
    """The text of an event stands only in EventName; log lines and counters may have the same name."""
    literals = []
    for path in SOURCES:
        module = ast.parse(path.read_text(encoding="utf-8"))
        calls = (node for node in ast.walk(module) if isinstance(node, ast.Call) and node.args)
        allowed = {id(call.args[0]) for call in calls if names_log_or_counter(call)}
        literals += [
            f"{path.relative_to(ROOT)}:{node.lineno}"
            for node in ast.walk(module)
            if isinstance(node, ast.Constant) and node.value in set(EventName) and id(node) not in allowed
        ]
    assert literals == []


def test_every_event_name_has_a_meaning():
    """MEANINGS describes exactly the members of EventName, in their order."""
    assert list(MEANINGS) == list(EventName)


def test_the_event_names_are_published_in_the_contract():
    """The schema of Event lists all names with their meanings, and accepts others."""
    field = asyncapi.json_schema(Event)["$defs"]["Event"]["properties"]["event"]
    assert field["x-events"] == {str(name): meaning for name, meaning in MEANINGS.items()}
    assert field["examples"] == [str(name) for name in EventName]
    assert "enum" not in field
    event = b'{"v":1,"node":"n","name":"e","event":"later.added","at_ms":1}'
    assert msgspec.json.decode(event, type=Event).event == "later.added"


def test_the_reference_lists_every_event():
    """docs/reference.md has a row for each event."""
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    for name, meaning in MEANINGS.items():
        assert f"| `{name}` | {meaning} |" in reference


def test_the_sources_are_found():
    """The checks above read the product's modules."""
    assert Path("cli/doctor.py") in {path.relative_to(ROOT) for path in SOURCES}
