"""Find the sentences of components, trainings and commands, as templates for the message catalogues.

They are made where something happens, as f-strings, and reach a page as text: over the broker, from a card,
or as an error. `console/web/phrasebook.py` finds them again by these templates.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (
    "bus/gateway", "bus/gateway/rules", "bus/http_source.py", "bus/mqtt", "bus/mqtt/connection",
    "bus/notifications/receivers.py", "bus/outbox",
    "cloud/collector", "cloud/dataset", "cloud/dataset/rows", "cloud/dataset/table", "cloud/evaluation",
    "cloud/export", "cloud/labeling", "cloud/modeling", "cloud/modeling/backbones", "cloud/registry",
    "cloud/retraining", "cloud/rollout", "cloud/training", "cloud/training/candidates",
    "cloud/training/groups", "device",
    "device/cameras", "edge", "edge/harvest", "edge/harvest/shrinking", "edge/inference",
    "edge/inference/answers", "edge/models", "edge/models/releases",
    "edge/models/transfer/bundle_source.py", "edge/models/transfer/whole_bundle.py", "edge/serving",
    "schemas", "schemas/groups", "schemas/image", "schemas/messages",
)  # fmt: skip
"""Folders whose errors and reasons reach a page; what only a command prints is not translated."""
WHOLE = tuple(
    ROOT / path
    for path in (
        "cloud/evaluation/audit_stats.py",
        "cloud/evaluation/promotion_gate.py",
        "cloud/evaluation/recall_losses.py",
        "cloud/retraining/triggers.py",
        "cloud/rollout/canary_analysis.py",
        "cloud/rollout/steering.py",
    )
)
"""Modules that compose their sentences of parts: each text in them with a blank is a sentence or a part."""
_CALLS = (
    "Alarm", "Decision", "Reason", "Refusal", "Rejected", "report_degraded", "degrade",
    "corrupt", "_corrupt", "_over", "_not_acknowledged", "transient_error",
)  # fmt: skip
"""Functions other than errors whose arguments are sentences, or parts of one."""
_SAID = (
    "reason",
    "hint",
    "expected",
    "got",
    "found",
    "problem",
    "subject",
    "words",
    "failure",
    "sentence",
    "why",
    "offline",
)
_TEXTS = ("str", "str | None", "Iterator[str]")
_MIN_LETTERS = 5
_LOGGERS = ("log", "logger", "level")


def sentences() -> Iterator[str]:
    """Yield the template of each sentence; one without values is the sentence itself."""
    for path in _files():
        tree = ast.parse(path.read_text("utf-8"))
        for node in _whole(tree) if path in WHOLE else _said(tree):
            yield from filter(None, map(template, _alternatives(node)))


def template(node: ast.expr) -> str | None:
    """Return the template of a string or f-string, None if it is not a sentence or none of ours."""
    parts = _parts(node)
    own = "".join(one if isinstance(one, str) else "-" for one in parts).strip()
    if " " not in own or sum(map(str.isalpha, own)) < _MIN_LETTERS:
        return None
    names: dict[str, str] = {}
    if not any(isinstance(one, ast.FormattedValue) for one in parts):
        return "".join(map(str, parts))
    made = ""
    for one in parts:
        if isinstance(one, str):
            made += one.replace("%", "%%")
        elif not made.endswith(")s"):  # where one value ends and the next begins could not be found again
            made += f"%({_name(one.value, names)})s"
    return made


def _files() -> Iterator[Path]:
    for folder in FOLDERS:
        place = ROOT / folder
        files = [place] if place.is_file() else sorted(place.glob("*.py"))
        yield from (one for one in files if one != ROOT / "schemas/errors.py")  # its parts come one by one


def _whole(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield each text of a module that is neither a docstring nor part of another text."""
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    comments = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    comments |= {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "description"
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.JoinedStr) or (
            isinstance(node, ast.Constant) and isinstance(node.value, str)
        )
        if is_text and id(node) not in inner | comments:
            yield node  # type: ignore[misc]


def _said(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield what errors are made of, and what is called a reason."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=func) if _called(func) not in _LOGGERS:
                if _is_said(func):
                    yield from node.args
                yield from (one.value for one in node.keywords if one.arg in _SAID)
            case ast.FunctionDef(returns=ast.expr() as kind) if ast.unparse(kind) in _TEXTS:
                yield from (one.value for one in ast.walk(node) if isinstance(one, ast.Return) and one.value)
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name.lower().strip("_") in _SAID:
                yield value


def _is_said(func: ast.expr) -> bool:
    name = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
    return name.endswith("Error") or name == "__init__" or name in _CALLS


def _called(func: ast.expr) -> str:
    """Return the name of the object whose method is called, or of the function."""
    inner = func.value if isinstance(func, ast.Attribute) else func
    return str(getattr(inner, "id", ""))


def _alternatives(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.IfExp):
        yield from _alternatives(node.body)
        yield from _alternatives(node.orelse)
    else:
        yield node


def _parts(node: ast.expr) -> list[str | ast.FormattedValue]:
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=values):
            return [
                part
                for one in values
                for part in ([one] if isinstance(one, ast.FormattedValue) else _parts(one))
            ]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _parts(left) + _parts(right)
    return []


def _name(value: ast.expr, names: dict[str, str]) -> str:
    """Return the name of a value in a template: a word of its expression, with a number if it is taken."""
    text = ast.unparse(value)
    if text not in names:
        word = next((str(one) for one in _words(value)), "value")
        taken = sum(one.rstrip("0123456789") == word for one in names.values())
        names[text] = f"{word}{taken + 1}" if taken else word
    return names[text]


def _words(value: ast.expr) -> Iterator[str]:
    match value:
        case ast.Name(id=name):
            yield name.strip("_").lower()
        case ast.Attribute(attr=name):
            yield name.strip("_")
        case ast.Call(func=func, args=[first, *_]):
            yield from _words(first)
            yield from _words(func)
        case ast.Call(func=func):
            yield from _words(func)
        case ast.BinOp(left=left, right=right):
            yield from _words(left)
            yield from _words(right)
        case ast.Subscript(value=inner) | ast.UnaryOp(operand=inner):
            yield from _words(inner)
