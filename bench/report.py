"""The result of one measurement as a file: `bench-out/NAME.json`."""

from pathlib import Path

import msgspec
from msgspec import Struct

from bench.figures import Figure, Judged, Spread, judge
from bench.machine import Machine


class Report(Struct, frozen=True, kw_only=True):
    """The figures of a measurement, with its machine and commit.

    Args:
        measurement: Name of the measurement in commands.
        title: Heading in the document.
        quick: A run that only checks that everything works; its figures mean nothing.
        failed: Error that ended it; None if it succeeded.
    """

    measurement: str
    title: str
    commit: str
    machine: Machine
    quick: bool
    began_at: str
    took_s: float
    figures: list[Figure]
    notes: list[str] = []
    failed: str | None = None


def write(report: Report, folder: Path) -> Path:
    """Write a report, with median, range and ratio of each figure in addition to its values."""
    folder.mkdir(parents=True, exist_ok=True)
    written = msgspec.to_builtins(report) | {"figures": [_label(judged) for judged in judge(report.figures)]}
    path = folder / f"{report.measurement}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(written), indent=2) + b"\n")
    return path


def read(path: Path) -> Report:
    """Read a report."""
    return msgspec.json.decode(path.read_bytes(), type=Report)


def _label(judged: Judged) -> dict[str, object]:
    fields: dict[str, object] = msgspec.to_builtins(judged.figure) | _spread("value", judged.value)
    if judged.ratio is not None:
        fields |= _spread("ratio", judged.ratio)
    return fields if judged.met is None else fields | {"met": judged.met}


def _spread(name: str, spread: Spread) -> dict[str, object]:
    return {name: {part: round(number, 6) for part, number in spread._asdict().items()}}
