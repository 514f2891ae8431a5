"""A version on trial beside the one in service: which of the two a photo is for, and how they compare.

Decisions and counts without I/O. The handler asks here before each call and says here what became of it;
`edge/models/deployer.py` brings versions on trial and ends it.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from math import ceil

from schemas.messages import CanaryReport, Stage, VersionStats

CALLS_KEPT = 256
"""Calls of each version whose durations make the percentile."""
CALLS_NEEDED = 20
"""Of fewer, the 95th percentile is the slowest one, which says nothing of the version."""

_SHARES = 2**64
_FAILURES_IN_A_ROW = 3
_SUCCESSES_IN_A_ROW = 10
_SHORTEST_PATIENCE_S = 2.0
_PATIENCE = 4.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a release asks for.

    Args:
        stage: `shadow` or `canary`.
        share: Of the devices, for canary.
        champion: The version in service.
        challenger: The version on trial.
        since_ms: When the stage was released, by the cloud's clock.
    """

    stage: Stage
    share: float
    champion: int
    challenger: int
    since_ms: int

    def tries(self, device: str) -> bool:
        """Tell whether a device's photos are answered by the challenger.

        The same devices in each call, more of them with a larger share, others for another version.
        """
        digest = blake2b(f"{device} {self.challenger}".encode(), digest_size=8).digest()
        return self.stage == "canary" and int.from_bytes(digest) < self.share * _SHARES


@dataclass(slots=True)
class _Record:
    """What one version did so far."""

    answered: int = 0
    failed: int = 0
    calls_ms: deque[float] = field(default_factory=lambda: deque(maxlen=CALLS_KEPT))

    def tried(self, version: int) -> VersionStats:
        p95_ms = percentile(self.calls_ms) if len(self.calls_ms) >= CALLS_NEEDED else None
        return VersionStats(version=version, answered=self.answered, failed=self.failed, p95_ms=p95_ms)


def percentile(durations: Iterable[float], share: float = 0.95) -> float | None:
    """Return the smallest duration that at least this share does not exceed; None of none."""
    ordered = sorted(durations)
    return ordered[max(ceil(share * len(ordered)), 1) - 1] if ordered else None


class Trial:
    """The present trial if there is one, and which version is in service.

    Attributes:
        pinned: The version that answers; None for the newest that is served, where there is only one.
        plan: Of the present trial.
        ready: Whether the challenger can be asked; if not, the champion answers all.
    """

    def __init__(self) -> None:
        self.pinned: int | None = None
        self.plan: Plan | None = None
        self.ready = False
        self._forget()

    def _forget(self) -> None:
        self._records: dict[int, _Record] = {}
        self._compared = 0
        self._disagreed = 0
        self._in_a_row = 0
        self._trusted = True

    def begin(self, plan: Plan) -> None:
        """Let the champion alone answer until the challenger is `ready`."""
        self.ready = False
        self.pinned = plan.champion
        self.change(plan)

    def change(self, plan: Plan) -> None:
        """Go on by another plan for the same versions; counts begin anew with each release."""
        if self.plan != plan:
            self._forget()
        self.plan = plan

    def end(self, answering: int | None = None) -> None:
        """End the trial; from now on this version answers, the one that did so if none is named."""
        self.pinned = self.pinned if answering is None else answering
        self.plan, self.ready = None, False
        self._forget()

    @property
    def challenger(self) -> int | None:
        """The version on trial, ready or not."""
        return None if self.plan is None else self.plan.challenger

    def challenger_for(self, device: str) -> int | None:
        """Return the version on trial if it is to answer this device's photos.

        After some failures in a row it answers none, so that nobody waits for more of them, until it does
        well many times in a row where photos are compared: these come alone, and one that does well with them
        may fail again with whole batches.
        """
        plan = self.plan
        if plan is None or not self.ready or not self._trusted:
            return None
        return plan.challenger if plan.tries(device) else None

    def other(self, version: int) -> int | None:
        """Return the version to compare with the one that answered, None outside of a trial."""
        if self.plan is None or not self.ready:
            return None
        champion, challenger = self.plan.champion, self.plan.challenger
        return {champion: challenger, challenger: champion}.get(version)

    def answered(self, version: int, photos: int, took_s: float | None) -> None:
        """Count a call that a version answered.

        Args:
            version: Which; those that are neither in the trial nor in service are not counted.
            photos: In the call.
            took_s: Seconds from call to answer; None if that would not compare with the other's calls.
        """
        if (record := self._record(version)) is not None:
            record.answered += photos
            self._judge(version, well=True)
            if took_s is not None:  # a batch takes as much longer as it is larger
                record.calls_ms.append(took_s * 1000 / photos)

    def failed(self, version: int) -> None:
        """Count a call that a version failed."""
        if (record := self._record(version)) is not None:
            record.failed += 1
            self._judge(version, well=False)

    def serves(self, version: int) -> None:
        """Note which version is in service: outside of a trial, what it does is counted from now on."""
        if self.plan is None and version not in self._records:
            self._records = {version: _Record()}

    def failed_in_service(self) -> None:
        """Count a call that the version in service failed, outside of a trial."""
        if self.plan is None:
            for record in self._records.values():
                record.failed += 1

    def serving(self) -> VersionStats | None:
        """Return what the version in service did, for the Status; None in a trial, whose report says it."""
        if self.plan is not None:
            return None
        return next((record.tried(version) for version, record in self._records.items()), None)

    def missed(self, version: int) -> None:
        """Note that a version was not there: if the challenger, the champion answers all meanwhile."""
        if version == self.challenger:
            self.ready = False

    def compared(self, *, agreed: bool) -> None:
        """Count a photo that both classified."""
        if self.plan is not None:
            self._compared += 1
            self._disagreed += not agreed

    def patience_s(self, photos: int) -> float:
        """Return how long the challenger may take for a call before the champion is asked instead."""
        champion = None if self.plan is None else self._record(self.plan.champion)
        usual_ms = None if champion is None else percentile(champion.calls_ms)
        return max(_SHORTEST_PATIENCE_S, _PATIENCE * (usual_ms or 0.0) * photos / 1000)

    def report(self) -> CanaryReport | None:
        """Return the trial for the Status; None while the challenger is not served."""
        plan = self.plan
        if plan is None or not self.ready:
            return None
        champion, challenger = (
            self._records.get(version, _Record()).tried(version)
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

    def _judge(self, version: int, *, well: bool) -> None:
        """Count the challenger's calls in a row, successes up and failures down."""
        if version != self.challenger:
            return
        self._in_a_row = max(self._in_a_row, 0) + 1 if well else min(self._in_a_row, 0) - 1
        if self._in_a_row <= -_FAILURES_IN_A_ROW:
            self._trusted = False
        elif self._in_a_row >= _SUCCESSES_IN_A_ROW:
            self._trusted = True

    def _record(self, version: int) -> _Record | None:
        if self.plan is None:
            return self._records.get(version)
        if version not in (self.plan.champion, self.plan.challenger):
            return None
        return self._records.setdefault(version, _Record())
