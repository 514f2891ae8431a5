"""The result of one measurement as a file: `bench-out/NAME.json`."""

from pathlib import Path

import msgspec
from msgspec import Struct

from bench.figures import Figure, Judged, Spread, judge
from bench.machine import Machine


class Report(Struct, frozen=True, kw_only=True):
    """What a measurement found, where, and of which commit.

    Args:
        measurement: Its name in commands.
        title: Its name in the document.
        quick: Made to see that it works; its figures mean nothing.
        failed: Why it did not come to its end; None if it did.
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
    """Write a report, with median, spread and ratio beside the values of each figure."""
    folder.mkdir(parents=True, exist_ok=True)
    written = msgspec.to_builtins(report) | {"figures": [_told(judged) for judged in judge(report.figures)]}
    path = folder / f"{report.measurement}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(written), indent=2) + b"\n")
    return path


def read(path: Path) -> Report:
    """Read what `write` wrote."""
    return msgspec.json.decode(path.read_bytes(), type=Report)


def _told(judged: Judged) -> dict[str, object]:
    told: dict[str, object] = msgspec.to_builtins(judged.figure) | _spread("value", judged.value)
    if judged.ratio is not None:
        told |= _spread("ratio", judged.ratio)
    return told if judged.met is None else told | {"met": judged.met}


def _spread(name: str, spread: Spread) -> dict[str, object]:
    return {name: {part: round(number, 6) for part, number in spread._asdict().items()}}
