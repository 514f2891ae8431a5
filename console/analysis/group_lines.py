"""The groups of a policy as lines `DEVICE = GROUP` of a form, and back."""

from collections.abc import Mapping

from schemas.groups.membership import EACH, PATTERN
from schemas.topics import NAME

MAX_LINES = 1024


class BadGroupLineError(ValueError):
    """A line that does not give a device or pattern its group.

    Attributes:
        line: the line.
    """

    def __init__(self, line: str) -> None:
        super().__init__(line)
        self.line = line


def group_lines(groups: Mapping[str, str]) -> str:
    """Return groups as sorted lines."""
    return "\n".join(f"{pattern} = {group}" for pattern, group in sorted(groups.items()))


def read_group_lines(text: str) -> dict[str, str]:
    """Read the lines.

    Raises:
        BadGroupLineError: A line is none, or there are too many.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > MAX_LINES:
        raise BadGroupLineError(lines[MAX_LINES])
    return dict(map(_read_line, lines))


def _read_line(line: str) -> tuple[str, str]:
    pattern, _, group = (part.strip() for part in line.partition("="))
    if PATTERN.fullmatch(pattern) is None or not (group == EACH or NAME.fullmatch(group)):
        raise BadGroupLineError(line)
    return pattern, group
