"""What happened in a run, counted: plain functions of the agents' lines and the model cards."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from cloud.registry.model_card import Candidate, Card

LANES = ("auto", "hard", "audit", "feedback")


class Line(msgspec.Struct, frozen=True):
    """A line that an agent prints: a result, and what the device knows of the photo."""

    photo_id: str
    status: str
    answered_at_ms: int
    truth: str | None = None
    label: str | None = None
    confidence: float | None = None
    model_version: int | None = None
    harvest: str | None = None
    round_trip_ms: float | None = None
    code: str | None = None


@dataclass(slots=True)
class Tally:
    """The photos of a run and their answers."""

    sent: int = 0
    lines: list[Line] = field(default_factory=list)
    deferred: int = 0

    def add(self, line: Line) -> None:
        """Count an answer; a deferred one is counted apart, because the final one follows."""
        if line.status == "deferred":
            self.deferred += 1
        else:
            self.lines.append(line)

    @property
    def answered(self) -> int:
        """Photos with a final answer."""
        return len({line.photo_id for line in self.lines})

    @property
    def lost(self) -> int:
        """Photos without one."""
        return self.sent - self.answered

    @property
    def failed(self) -> int:
        """Answers that are no classification, and those that came late."""
        return sum(line.status != "ok" for line in self.lines) + self.deferred

    @property
    def right(self) -> int:
        """Photos that were given their true label."""
        return sum(line.label == line.truth for line in self.lines if line.truth is not None)

    @property
    def per_s(self) -> float:
        """Answers in a second, from the first one to the last."""
        times = [line.answered_at_ms for line in self.lines]
        return (len(times) - 1) / max(0.001, (max(times) - min(times)) / 1000) if times else 0.0

    def by_version(self) -> Counter[int | None]:
        """Count which model version answered."""
        return Counter(line.model_version for line in self.lines if line.status == "ok")

    def harvested(self) -> list[Line]:
        """Return the answers whose photos became samples."""
        return [line for line in self.lines if line.harvest in LANES]

    def refused(self) -> Counter[str | None]:
        """Count why photos were not harvested."""
        return Counter(line.harvest for line in self.lines if line.harvest and line.harvest not in LANES)

    def truths(self) -> dict[str, str]:
        """Return the true label of each photo that the camera knew it of."""
        return {line.photo_id: line.truth for line in self.lines if line.truth is not None}

    def latencies_ms(self) -> list[float]:
        """Return the round trips, sorted, in milliseconds."""
        return sorted(line.round_trip_ms for line in self.lines if line.round_trip_ms is not None)


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which that share lies (nearest rank); 0 where there is none."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a run has measured.

    Args:
        replay: All photos of the stream, as fast as they are answered.
        watch: Photos at a camera's pace, while the model is swapped.
        first: Card of version 1.
        second: Card of version 2.
        reviewed: Ids of the photos that the person labelled.
    """

    replay: Tally
    watch: Tally
    first: Card
    second: Card
    reviewed: frozenset[str]

    @property
    def lost(self) -> int:
        """Photos without an answer."""
        return self.replay.lost + self.watch.lost

    def problem(self) -> str | None:
        """Return why the run is no success, or None."""
        if self.lost:
            return f"{self.lost} photos lost"
        if self.watch.failed:
            return f"{self.watch.failed} of {self.watch.sent} photos failed during the swap"
        if len(self.watch.by_version()) < 2:  # noqa: PLR2004  # before and after
            return "the photos that were to flow during the swap were answered by one version alone"
        one, two = accuracy(self.first), accuracy(self.second)
        if two <= one:
            return f"version 2 is not better than version 1 on gold ({two:.1%} and {one:.1%})"
        return None

    def rows(self) -> list[tuple[str, str]]:
        """Return the closing table: what was asked, and the answer."""
        replay, watch = self.replay, self.watch
        return [
            ("photos sent", f"{replay.sent + watch.sent}"),
            ("photos answered", f"{replay.answered + watch.answered}"),
            ("photos lost", f"{self.lost}"),
            ("failed during the swap", f"{watch.failed} of {watch.sent} ({_versions(watch)})"),
            (f"version 1, {labels(self.first)} labels", on_gold(self.first)),
            ("version 2, all of it", on_gold(self.second)),
            *self._contributions(),
            *self._verdict(),
            ("harvested", _counted(Counter(line.harvest for line in replay.harvested()))),
            ("not harvested", _counted(replay.refused())),
            ("answer at a camera's pace", f"{_latency(watch)} ({watch.per_s:.0f} photos a second)"),
            ("answer in the replay", f"{_latency(replay)} ({replay.per_s:.0f} a second, and a queue)"),
        ]

    def _verdict(self) -> list[tuple[str, str]]:
        verdict = self.second.verdict
        return [] if verdict is None else [("the gate says", f"{verdict.decision}: {verdict.reasons[0]}")]

    def _contributions(self) -> list[tuple[str, str]]:
        """Say what each source of labels has added, whichever of the two was chosen."""
        human, *others = self.second.candidates
        rows = [(f"  {len(self.reviewed)} labels by a person", _points(accuracy(self.first), _gold(human)))]
        if not others:
            return [*rows, ("  harvested photos", "none was sure enough and confirmed")]
        harvested = others[0]
        left_out = "" if harvested.name == self.second.chosen else ", left out"
        added = _points(_gold(human), _gold(harvested)) + left_out
        return [*rows, (f"  {harvested.photos - human.photos} harvested photos", added)]


def accuracy(card: Card) -> float:
    """Return a card's accuracy on gold."""
    return card.metrics.accuracy if card.metrics else 0.0


def labels(card: Card) -> int:
    """Return how many labels of people a version was trained on."""
    return sum(sources.get("human", 0) for sources in card.examples_used.values())


def on_gold(card: Card) -> str:
    """Return a card's accuracy on gold in words."""
    if card.metrics is None:
        return "not measured"
    metrics = card.metrics
    return (
        f"{metrics.accuracy:.1%} of {metrics.photos} gold photos "
        f"(95 % interval {metrics.accuracy_low:.1%} to {metrics.accuracy_high:.1%})"
    )


def _gold(candidate: Candidate) -> float:
    return candidate.gold_accuracy or 0.0


def _points(before: float, after: float) -> str:
    return f"{100 * (after - before):+.1f} points, to {after:.1%}"


def _versions(tally: Tally) -> str:
    counts = sorted(tally.by_version().items(), key=str)
    return ", ".join(f"{count} by version {version}" for version, count in counts)


def _counted(counts: Counter[str | None]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.most_common()) or "0"


def _latency(tally: Tally) -> str:
    ordered = tally.latencies_ms()
    return f"p50 {percentile(ordered, 0.5):.0f} ms, p99 {percentile(ordered, 0.99):.0f} ms"
