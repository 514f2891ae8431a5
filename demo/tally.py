"""The measurements of a run, computed from the output of the agents and the model cards."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from cloud.registry.model_card import Candidate, Card
from schemas.lanes import LANES


class Line(msgspec.Struct, frozen=True):
    """A line of JSON that an agent prints: a result with the true class and the round trip."""

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
    """The photos that were sent, and their results."""

    sent: int = 0
    lines: list[Line] = field(default_factory=list)
    deferred: int = 0

    def add(self, line: Line) -> None:
        """Add a result; a deferred one is only counted, because the final one follows."""
        if line.status == "deferred":
            self.deferred += 1
        else:
            self.lines.append(line)

    @property
    def answered(self) -> int:
        """Number of photos with a final result."""
        # Distinct ids: a photo that was resent may have two results.
        return len({line.photo_id for line in self.lines})

    @property
    def lost(self) -> int:
        """Number of photos without a final result."""
        return self.sent - self.answered

    @property
    def failed(self) -> int:
        """Number of results that are not a classification, including deferred ones."""
        return sum(line.status != "ok" for line in self.lines) + self.deferred

    @property
    def correct(self) -> int:
        """Number of results with the true label."""
        return sum(line.label == line.truth for line in self.lines if line.truth is not None)

    @property
    def rate_per_s(self) -> float:
        """Results per second, from the first to the last."""
        times = [line.answered_at_ms for line in self.lines]
        return (len(times) - 1) / max(0.001, (max(times) - min(times)) / 1000) if times else 0.0

    def by_version(self) -> Counter[int | None]:
        """Count the classifications by model version."""
        return Counter(line.model_version for line in self.lines if line.status == "ok")

    def harvested(self) -> list[Line]:
        """Return the results whose photos were harvested."""
        return [line for line in self.lines if line.harvest in LANES]

    def not_harvested(self) -> Counter[str | None]:
        """Count the photos that were not harvested, by reason."""
        return Counter(line.harvest for line in self.lines if line.harvest and line.harvest not in LANES)

    def truths(self) -> dict[str, str]:
        """Return the true labels by photo id."""
        return {line.photo_id: line.truth for line in self.lines if line.truth is not None}

    def latencies_ms(self) -> list[float]:
        """Return the sorted round trips in milliseconds."""
        return sorted(line.round_trip_ms for line in self.lines if line.round_trip_ms is not None)


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the percentile of sorted values by nearest rank; 0 if there are none."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(frozen=True, slots=True)
class Outcome:
    """All measurements of a run.

    Args:
        replay: All photos of the stream, as fast as results return.
        live: Photos at the rate of a camera, while the model is swapped.
        first: Model card of version 1.
        second: Model card of version 2.
        reviewed: Ids of the photos that the reviewer labelled.
    """

    replay: Tally
    live: Tally
    first: Card
    second: Card
    reviewed: frozenset[str]

    @property
    def lost(self) -> int:
        """Number of photos without a final result."""
        return self.replay.lost + self.live.lost

    def problem(self) -> str | None:
        """Return why the run failed, or None."""
        if self.lost:
            return f"{self.lost} photos lost"
        if self.live.failed:
            return f"{self.live.failed} of {self.live.sent} photos failed during the swap"
        if len(self.live.by_version()) < 2:  # noqa: PLR2004  # before and after the swap
            return "all photos during the swap were classified by the same version"
        one, two = accuracy(self.first), accuracy(self.second)
        # Where the first version makes no mistake, nothing is left to gain.
        if two < one or two == one < 1:
            return f"version 2 is not better than version 1 on gold ({two:.1%} and {one:.1%})"
        return None

    def rows(self) -> list[tuple[str, str]]:
        """Return the rows of the summary table: name and value."""
        replay, live = self.replay, self.live
        return [
            ("photos sent", f"{replay.sent + live.sent}"),
            ("photos answered", f"{replay.answered + live.answered}"),
            ("photos lost", f"{self.lost}"),
            ("failed during the swap", f"{live.failed} of {live.sent} ({_versions_text(live)})"),
            (f"version 1, {labels(self.first)} labels", gold_text(self.first)),
            ("version 2, all labels", gold_text(self.second)),
            *self._network(),
            *self._contributions(),
            *self._verdict(),
            ("harvested", _counts_text(Counter(line.harvest for line in replay.harvested()))),
            ("not harvested", _counts_text(replay.not_harvested())),
            ("latency, live cameras", f"{_latency_text(live)} ({live.rate_per_s:.0f} photos per second)"),
            (
                "latency, replay",
                f"{_latency_text(replay)} ({replay.rate_per_s:.0f} photos per second, queued)",
            ),
        ]

    def _network(self) -> list[tuple[str, str]]:
        """Return which network version 2 has, if held-out labels chose another one than version 1's."""
        if self.second.backbone == self.first.backbone:
            return []
        return [("  its network", f"{self.second.backbone}, better on held-out labels")]

    def _verdict(self) -> list[tuple[str, str]]:
        verdict = self.second.verdict
        return [] if verdict is None else [("promotion gate", f"{verdict.decision}: {verdict.reasons[0]}")]

    def _contributions(self) -> list[tuple[str, str]]:
        """Return what each source of labels has added, whichever candidate was chosen."""
        human, *rest = self.second.candidates
        rows = [
            (f"  {len(self.reviewed)} labels by the reviewer", _gain_text(accuracy(self.first), _gold(human)))
        ]
        if not rest:
            return [*rows, ("  harvested photos", "none was confident and confirmed")]
        harvested = rest[0]
        left_out = "" if harvested.name == self.second.chosen else ", left out"
        added = _gain_text(_gold(human), _gold(harvested)) + left_out
        return [*rows, (f"  {harvested.photos - human.photos} harvested photos", added)]


def accuracy(card: Card) -> float:
    """Return a card's accuracy on gold."""
    return card.metrics.accuracy if card.metrics else 0.0


def labels(card: Card) -> int:
    """Return the number of human labels that a version was trained on."""
    return sum(sources.get("human", 0) for sources in card.examples_used.values())


def gold_text(card: Card) -> str:
    """Return the accuracy on gold of a card as text."""
    if card.metrics is None:
        return "not measured"
    metrics = card.metrics
    return (
        f"{metrics.accuracy:.1%} of {metrics.photos} gold photos "
        f"(95 % interval {metrics.accuracy_low:.1%} to {metrics.accuracy_high:.1%})"
    )


def _gold(candidate: Candidate) -> float:
    return candidate.gold_accuracy or 0.0


def _gain_text(before: float, after: float) -> str:
    return f"{100 * (after - before):+.1f} points, to {after:.1%}"


def _versions_text(tally: Tally) -> str:
    counts = sorted(tally.by_version().items(), key=str)
    return ", ".join(f"{count} by version {version}" for version, count in counts)


def _counts_text(counts: Counter[str | None]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "0"


def _latency_text(tally: Tally) -> str:
    ordered = tally.latencies_ms()
    return f"p50 {percentile(ordered, 0.5):.0f} ms, p99 {percentile(ordered, 0.99):.0f} ms"
