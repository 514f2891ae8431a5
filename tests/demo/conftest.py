"""Measurements of finished runs, and a search for what a run has left behind."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloud.evaluation.metrics import Metrics, wilson_interval
from cloud.registry.model_card import Candidate, Card
from demo.tally import Line, Outcome, Tally

PHOTO = b"\xff\xd8 a picture"


def line(number: int, **fields: object) -> Line:
    """Return a result, correct and confident by default."""
    facts: dict[str, object] = {
        "status": "ok", "answered_at_ms": 1000 * number, "truth": "cat", "label": "cat", "confidence": 0.9,
        "model_version": 1, "harvest": "auto", "round_trip_ms": 10.0 + number,
    }  # fmt: skip
    return Line(photo_id=f"{number:032x}", **(facts | fields))  # type: ignore[arg-type]  # tests pass fields by name


def tally(*lines: Line, sent: int | None = None) -> Tally:
    """Return a tally of results."""
    counted = Tally(sent=len(lines) if sent is None else sent)
    for answer in lines:
        counted.add(answer)
    return counted


def card(version: int, right: int, candidates: Sequence[Candidate], *, human: int, chosen: str) -> Card:
    """Return the card of a version that classifies `right` of 100 gold photos correctly."""
    low, high = wilson_interval(right, 100)
    metrics = Metrics(
        photos=100, accuracy=right / 100, accuracy_low=low, accuracy_high=high, recall={},
        confusion=[[right // 2, 50 - right // 2], [50 - right + right // 2, right - right // 2]],
        calibration_error=0.0, mean_confidence=0.9,
    )  # fmt: skip
    return Card(
        version=version, parent=None, dataset_version=None, backbone="b", weights_digest="", signature={},
        classes=["cat", "dog"], temperature=1.0, examples={"cat": {"human": human}},
        examples_used={"cat": {"human": human}}, metrics=metrics, chosen=chosen,
        candidates=list(candidates), seed=0, commit=None, created_at="", training_s=1.0, libraries={},
    )  # fmt: skip


def candidate(name: str, photos: int, gold: float) -> Candidate:
    """Return a candidate with that accuracy on gold."""
    return Candidate(name, photos, photos, 0.1, 0.9, gold)


def outcome(
    *, right: int = 90, human: float = 0.88, tried: int = 2, chosen: str = "human+harvested", **fields: object
) -> Outcome:
    """Return the measurements of a successful run, with changed fields."""
    candidates = [candidate("human", 30, human), candidate("human+harvested", 46, right / 100)][:tried]
    facts: dict[str, object] = {
        "replay": tally(
            *(line(n, harvest="auto" if n % 2 else "hard", confidence=n / 40) for n in range(30)),
            line(30, harvest="between-thresholds"),
        ),
        "live": tally(*(line(100 + n, model_version=1 + n // 5) for n in range(10))),
        "first": card(1, 80, [candidate("human", 10, 0.8)], human=10, chosen="human"),
        "second": card(2, right, candidates, human=30, chosen=chosen),
        "reviewed": frozenset(f"{n:032x}" for n in range(20)),
    }
    return Outcome(**(facts | fields))  # type: ignore[arg-type]  # tests pass fields by name


@dataclass(frozen=True)
class Leftovers:
    """Find processes with a mark in their environment, and temporary folders of a run."""

    mark: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables to start a run with."""
        return {"GLEANER_TEST": self.mark, "TMPDIR": str(self.folder)}

    def processes(self) -> list[str]:
        """Return the command lines of the processes that still run."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                marked = self.mark.encode() in (process / "environ").read_bytes()
                command = (process / "cmdline").read_bytes()
            except OSError:  # it has just exited, or belongs to another user
                continue
            if marked and command:  # a zombie has no command line
                found.append(command.replace(b"\0", b" ").decode())
        return found

    def folders(self) -> list[str]:
        """Return the names of the temporary folders that still exist."""
        return [path.name for path in self.folder.glob("gleaner-*")]


@pytest.fixture
def leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Leftovers:
    """The leftovers of this test: processes that it starts inherit the mark."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    found = Leftovers(secrets.token_hex(16), folder)
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    return found
