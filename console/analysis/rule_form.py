"""Harvest rules as the fields of a form, with the bounds of the contract, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import inspect

from schemas.class_names import ClassNameError, class_name
from schemas.policy_rules import HarvestRules

Kind: TypeAlias = Literal["switch", "whole", "decimal", "by-class"]

_KEPT = ("hard_confidence", "hard_margin", "usual_audit_share")
"""Not in the form: deprecated, or owned by the drift alarm. They stay as they are."""
_LARGEST = 2**53
_MAX_LINES = 1024


@dataclass(frozen=True, slots=True)
class Field:
    """A rule as a field of the form.

    Attributes:
        name: Of the rule, `caps.` before those of the caps.
        kind: What the field holds; `by-class` is a line `CLASS = VALUE` for each class.
        low: Smallest value; of the values by class too.
        high: Largest value, None without a bound that means anything.
        whole: Whether values are whole numbers.
        default: Of the contract.
    """

    name: str
    kind: Kind
    low: float
    high: float | None
    whole: bool
    default: object


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the text of a field is not a value of its rule.

    Attributes:
        field: The field.
        line: The line of a field by class, empty otherwise.
    """

    field: Field
    line: str = ""


def rule_fields() -> list[Field]:
    """Return the fields of the form, in the order of the contract."""
    rules = inspect.type_info(HarvestRules)
    assert isinstance(rules, inspect.StructType)
    found = []
    for one in rules.fields:
        inner = _bare(one.type)
        if isinstance(inner, inspect.StructType):
            found += [_field(f"{one.name}.{part.name}", part) for part in inner.fields]
        elif one.name not in _KEPT:
            found.append(_field(one.name, one))
    return found


def texts_of(rules: HarvestRules) -> dict[str, str]:
    """Return the text of each field for some rules; a switch that is off is empty."""
    return {field.name: _text(_value(rules, field.name)) for field in rule_fields()}


def read_rules(texts: Mapping[str, str], base: HarvestRules) -> tuple[HarvestRules | None, list[Problem]]:
    """Read the form.

    Args:
        texts: By field; a switch that is missing is off.
        base: Rules whose other fields stay.

    Returns:
        The rules, or None with the error of each field.
    """
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for field in rule_fields():
        try:
            values[field.name] = _read(field, texts.get(field.name, ""))
        except _BadLineError as error:
            problems.append(Problem(field, error.line))
        except ValueError:
            problems.append(Problem(field))
    if problems:
        return None, problems
    caps = {name.removeprefix("caps."): value for name, value in values.items() if name.startswith("caps.")}
    own = {name: value for name, value in values.items() if "." not in name}
    changed = msgspec.structs.replace(base, **own, caps=msgspec.structs.replace(base.caps, **caps))
    return changed, []


def changed_fields(before: HarvestRules, after: HarvestRules) -> list[tuple[str, str, str]]:
    """Return name, old text and new text of each field that differs."""
    old, new = texts_of(before), texts_of(after)
    return [(name, old[name], new[name]) for name in old if old[name] != new[name]]


class _BadLineError(ValueError):
    def __init__(self, line: str) -> None:
        super().__init__(line)
        self.line = line


def _bare(kind: inspect.Type) -> inspect.Type:
    return _bare(kind.type) if isinstance(kind, inspect.Metadata) else kind


def _field(name: str, one: inspect.Field) -> Field:
    kind = _bare(one.type)
    default = one.default_factory() if one.default is msgspec.NODEFAULT else one.default
    if isinstance(kind, inspect.BoolType):
        return Field(name, "switch", 0, 1, whole=True, default=default)
    values = _bare(kind.value_type) if isinstance(kind, inspect.DictType) else kind
    assert isinstance(values, inspect.IntType | inspect.FloatType)
    whole = isinstance(values, inspect.IntType)
    high = None if values.le is None or values.le >= _LARGEST else values.le
    shape: Kind = "by-class" if isinstance(kind, inspect.DictType) else "whole" if whole else "decimal"
    return Field(name, shape, values.ge or 0, high, whole=whole, default=default)


def _value(rules: HarvestRules, name: str) -> object:
    owner: object = rules
    for part in name.split("."):
        owner = getattr(owner, part)
    return owner


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else ""
    if isinstance(value, dict):
        return "\n".join(f"{name} = {_number(one)}" for name, one in sorted(value.items()))
    return _number(value)


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)  # noqa: PLR2004 - from there on `g` rounds


def _read(field: Field, text: str) -> object:
    if field.kind == "switch":
        return bool(text)
    if field.kind == "by-class":
        return dict(_read_line(field, line) for line in _lines(text))
    return _read_number(field, text)


def _lines(text: str) -> Sequence[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > _MAX_LINES:
        raise _BadLineError(lines[_MAX_LINES])
    return lines


def _read_line(field: Field, line: str) -> tuple[str, object]:
    # From the right: a class name may have an equals sign in it.
    name, equals, value = line.rpartition("=")
    if not equals:
        raise _BadLineError(line)
    try:
        return class_name(name.strip()), _read_number(field, value)
    except (ValueError, ClassNameError):
        raise _BadLineError(line) from None


def _read_number(field: Field, text: str) -> float:
    number = int(text) if field.whole else float(text)
    highest = _LARGEST if field.high is None else field.high
    if not field.low <= number <= highest:  # also refuses nan
        raise ValueError
    return number
