"""Route photos to the champion or the challenger, and count what each version does.

Without I/O. The deployer applies a TrafficSplit; the inference pipeline asks for the version before each call
and records the outcome. Used from the event loop alone.
"""

from edge.serving.call_stats import CallStats, CircuitBreaker, percentile
from edge.serving.traffic_split import TrafficSplit
from schemas.messages import CanaryReport, VersionStats

_SHORTEST_TIMEOUT_S = 2.0
_TIMEOUT_FACTOR = 4.0
_SHORTEST_CALL_S = 1.5
_USUAL_CALL_S = 10.0
_CALL_FACTOR = 10.0
_LATENCY_EVERY = 16
SHORTEST_SLOW_S = 0.15
"""No call below this duration is unusually long."""
_UNKNOWN_SLOW_S = 1.0
_SLOW_FACTOR = 5.0


class TrafficRouter:
    """Holds the present TrafficSplit and the counts that belong to it.

    "During a stage" means: while a challenger is evaluated, as shadow or canary.
    """

    def __init__(self) -> None:
        self._split = TrafficSplit()
        self.available: int | None = None
        """Version in service as the model server last reported it; None while it is away."""
        self._restart_counts()

    def _restart_counts(self) -> None:
        self._stats: dict[int, CallStats] = {}
        self._usual_ms: float | None = None
        self._median_ms: float | None = None
        self._compared = 0
        self._disagreed = 0
        self._breaker = CircuitBreaker()

    @property
    def split(self) -> TrafficSplit:
        """The present split."""
        return self._split

    def apply(self, split: TrafficSplit) -> None:
        """Replace the split. Counts restart with another plan, that is with each stage of a rollout."""
        # Not with each split: pausing for a restart of the server must not forget what the challenger did.
        if split.plan != self._split.plan:
            self._restart_counts()
        self._split = split

    def mark_missing(self, version: int) -> None:
        """Note that the model server does not have a version; without the challenger the champion answers."""
        if version == self._split.challenger:
            self.apply(self._split.with_challenger(ready=False))

    def challenger_for(self, device: str) -> int | None:
        """Return the challenger if it answers this device's photos, None for the version in service."""
        return self._split.challenger_for(device) if self._breaker.closed else None

    def may_answer(self) -> frozenset[int]:
        """Return the versions that may answer now; empty while the model server is away."""
        if self.available is None:
            return frozenset()
        challenger = self._split.challenger
        return frozenset({self.available} if challenger is None else {self.available, challenger})

    def counterpart(self, version: int) -> int | None:
        """Return the version to compare an answer with, None if there is nothing to compare."""
        return self._split.counterpart(version)

    def challenger_timeout_s(self, photos: int) -> float:
        """Return how long to wait for the challenger before the champion is asked instead, in seconds.

        A multiple of the champion's own latency, and never less than two seconds.
        """
        plan = self._split.plan
        champion = None if plan is None else self._stats_of(plan.champion)
        usual_ms = None if champion is None else percentile(champion.calls_ms)
        return max(_SHORTEST_TIMEOUT_S, _TIMEOUT_FACTOR * (usual_ms or 0.0) * photos / 1000)

    def call_timeout_s(self, photos: int) -> float:
        """Return after how long a call may have a photo in it that occupies the server, in seconds.

        Ten times the usual latency, at least 1.5 seconds; ten seconds while the latency is unknown.
        """
        if self._usual_ms is None:
            return _USUAL_CALL_S
        return max(_SHORTEST_CALL_S, _CALL_FACTOR * self._usual_ms * photos / 1000)

    def slow_call_s(self, photos: int) -> float:
        """Return from which duration a call is unusually long, in seconds: five times the median."""
        # The median, because a few devices with slow photos must not become the usual case.
        if self._median_ms is None:
            return _UNKNOWN_SLOW_S
        return max(SHORTEST_SLOW_S, _SLOW_FACTOR * self._median_ms * photos / 1000)

    def record_success(self, version: int, photos: int, duration_s: float | None) -> None:
        """Count a call that a version answered.

        Args:
            version: The version; ignored if it is neither in service nor in the split.
            photos: Photos in the call.
            duration_s: From call to answer; None if it is not comparable with the other version's calls.
        """
        if (stats := self._stats_of(version)) is not None:
            stats.record_success(photos, duration_s)
            # Not for each call: sorting the durations would be a large part of its cost.
            if len(stats.calls_ms) % _LATENCY_EVERY == 0:
                self._usual_ms = stats.p95_ms
                self._median_ms = percentile(stats.calls_ms, 0.5)
            self._record_in_breaker(version, success=True)

    def record_failure(self, version: int) -> None:
        """Count a call that a version failed."""
        if (stats := self._stats_of(version)) is not None:
            stats.record_failure()
            self._record_in_breaker(version, success=False)

    def record_serving_failure(self) -> None:
        """Count a call that the version in service failed; ignored during a stage."""
        if self._split.plan is None:
            for stats in self._stats.values():
                stats.record_failure()

    def record_comparison(self, *, agreed: bool) -> None:
        """Count a photo that both versions classified."""
        if self._split.plan is not None:
            self._compared += 1
            self._disagreed += not agreed

    def set_serving(self, version: int) -> None:
        """Start to count for the version in service; ignored during a stage or if it is unchanged."""
        if self._split.plan is None and version not in self._stats:
            self._stats = {version: CallStats()}

    def serving_report(self) -> VersionStats | None:
        """Return the counts of the version in service; None during a stage, whose report has them."""
        if self._split.plan is not None:
            return None
        return next((stats.report(version) for version, stats in self._stats.items()), None)

    def canary_report(self) -> CanaryReport | None:
        """Return the counts of both versions, None without a ready challenger."""
        plan = self._split.plan
        if plan is None or not self._split.ready:
            return None
        champion, challenger = (
            self._stats.get(version, CallStats()).report(version)
            for version in (plan.champion, plan.challenger)
        )
        return CanaryReport(
            stage=plan.stage,
            champion=champion,
            challenger=challenger,
            compared=self._compared,
            disagreed=self._disagreed,
            since_ms=plan.since_ms,
        )

    def _record_in_breaker(self, version: int, *, success: bool) -> None:
        if version == self._split.challenger:
            self._breaker.record(success=success)

    def _stats_of(self, version: int) -> CallStats | None:
        plan = self._split.plan
        if plan is None:
            return self._stats.get(version)
        if version not in (plan.champion, plan.challenger):  # a call that began before the stage
            return None
        return self._stats.setdefault(version, CallStats())
