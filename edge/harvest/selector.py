"""Select photos for the harvest: plain functions and bounded memory, no I/O.

Order of the rules: audit, near-duplicate, lane, quota, caps. The name of a refusal becomes a counter.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from edge.harvest.dedup import SeenHashes
from edge.harvest.history import HarvestedSample
from edge.harvest.lanes import Decision, ModelScores, drawn_for_audit, lane_of
from edge.harvest.quotas import Budget
from schemas.lanes import AUDIT
from schemas.policy_rules import HarvestRules


@dataclass(slots=True)
class Selector:
    """The rules in force and the state that they need."""

    rules: HarvestRules
    seen: SeenHashes = field(default_factory=SeenHashes)
    budget: Budget = field(default_factory=Budget)
    audit_key: bytes = b""
    """Random key of this node for the draw of audits, because devices choose the ids of their photos."""

    def exhausted_cap(self, now: float, device: str | None = None) -> str | None:
        """Return a cap or share that any further sample would exceed, which saves decoding the photo."""
        if device is not None:
            self.budget.active.seen(device, now)
        return self.budget.exhausted_cap(self.rules.caps, now, device)

    def choose(self, photo_id: str, device: str, dhash: int, scores: ModelScores, now: float) -> Decision:
        """Decide whether to harvest a photo; `record` has to follow if it is.

        Args:
            photo_id: Decides the draw for the audit.
            device: That sent the photo.
            dhash: Its difference hash.
            scores: Predicted by the model.
            now: Seconds of a monotonic clock.
        """
        chosen = self._choose(photo_id, device, dhash, scores, now)
        # After the comparison, which needs the photo before this one.
        self.seen.set_last_photo(device, dhash, scores.label, now)
        if chosen.lane is None:
            return chosen
        # The size is not known yet. Checking twice saves decoding and shrinking a photo that has no room.
        refused = self.refusal(chosen.lane, scores.label, 0, now, device)
        return Decision(None, refused) if refused else chosen

    def _choose(self, photo_id: str, device: str, dhash: int, scores: ModelScores, now: float) -> Decision:
        # First: any rule before it that depends on the content would bias the audit.
        if drawn_for_audit(photo_id, self.rules.audit_share, self.audit_key):
            return Decision(AUDIT)
        similarity = self.seen.compare(device, dhash, scores.label, self.rules, now)
        if similarity == "near-duplicate":
            return Decision(None, "near-duplicate")
        return lane_of(scores, self.rules, flipped=similarity == "flip")

    def refusal(
        self, lane: str, label: str, size_bytes: int, now: float, device: str | None = None
    ) -> str | None:
        """Return the quota, cap or share that a sample of this size would exceed, or None."""
        return self.budget.refusal(lane, label, size_bytes, self.rules, now, device=device)

    def record(self, sample: HarvestedSample) -> None:
        """Count a sample that was admitted to the outbox."""
        self.seen.add(sample)
        self.budget.spend(sample)

    def restore(self, samples: Iterable[HarvestedSample]) -> None:
        """Count the samples of earlier runs, the oldest first."""
        for sample in samples:
            self.seen.add(sample)  # a refunded one too: the cloud has its photo
            if not sample.refunded:
                self.budget.spend(sample)
