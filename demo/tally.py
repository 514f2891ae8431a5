"""What happened in a run, counted: plain functions of the agents' lines and the model cards."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from cloud.card import Card

LANES = ("auto", "hard")


class Line(msgspec.Struct, frozen=True):
    """A line that an agent prints: a result, and what the device knows of the photo."""

    photo_id: str
    status: str
    source: str
    device: str
    answered_at_ms: int
    truth: str | None = None
    label: str | None = None
    confidence: float | None = None
    model_version: int | None = None
    harvest: str | None = None
    round_trip_ms: float | None = None
    code: str | None = None
    reason: str | None = None


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

    def harvested(self) -> list[Line]:
        """Return the answers whose photos became samples."""
        return [line for line in self.lines if line.harvest in LANES]

    def refused(self) -> Counter[str]:
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


def accuracy(card: Card) -> str:
    """Return a card's accuracy on the gold set in words."""
    if card.metrics is None:
        return "not measured"
    metrics = card.metrics
    return (
        f"{metrics.accuracy:.1%} of {metrics.photos} photos "
        f"(95 % interval {metrics.accuracy_low:.1%} to {metrics.accuracy_high:.1%})"
    )


def rows(stream: Tally, swap: Tally, cards: tuple[Card, Card], reviewed: int) -> list[tuple[str, str]]:
    """Return the closing table: what was asked, and the answer."""
    ordered = stream.latencies_ms()
    lanes = Counter(line.harvest for line in stream.harvested())
    table = [
        ("photos sent", f"{stream.sent + swap.sent}"),
        ("photos answered", f"{stream.answered + swap.answered}"),
        ("photos lost", f"{stream.lost + swap.lost}"),
        ("failed during the swap", f"{swap.failed} of {swap.sent}"),
        ("version 1 on gold", accuracy(cards[0])),
        ("version 2 on gold", accuracy(cards[1])),
    ]
    for candidate in cards[1].candidates:
        gold = candidate.gold_accuracy or 0.0
        chosen = ", chosen" if candidate.name == cards[1].chosen else ""
        table.append((f"  from {candidate.name}", f"{gold:.1%} ({candidate.photos} photos{chosen})"))
    table += [
        ("labels by the reviewer", f"{reviewed}"),
        ("harvested", ", ".join(f"{count} {lane}" for lane, count in lanes.most_common()) or "0"),
        (
            "not harvested",
            ", ".join(f"{count} {why}" for why, count in stream.refused().most_common()) or "0",
        ),
        ("latency", f"p50 {percentile(ordered, 0.5):.0f} ms, p99 {percentile(ordered, 0.99):.0f} ms"),
    ]
    return table


def verdict(stream: Tally, swap: Tally, cards: tuple[Card, Card]) -> str | None:
    """Return why the run is no success, or None."""
    if lost := stream.lost + swap.lost:
        return f"{lost} photos lost"
    if swap.failed:
        return f"{swap.failed} requests failed during the swap"
    one, two = (card.metrics.accuracy if card.metrics else 0.0 for card in cards)
    if two <= one:
        return f"version 2 is not better than version 1 ({two:.1%} and {one:.1%})"
    return None
