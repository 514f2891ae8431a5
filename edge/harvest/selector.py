"""Which photos are worth learning from: plain functions and bounded memory, no I/O.

In this order: audit, near-duplicate, lane, quota, caps; where a cap leaves no room, nothing else is asked.
Each refusal has a name that becomes a counter.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from PIL import Image

from edge.harvest.dedup import SeenHashes
from edge.harvest.history import HarvestedSample
from edge.harvest.lanes import Decision, ModelScores, drawn_for_audit, lane_of
from edge.harvest.quotas import Budget
from schemas.lanes import AUDIT
from schemas.messages import HarvestRules

# The header was checked against the edge's own limit; Pillow's would only warn.
Image.MAX_IMAGE_PIXELS = None


@dataclass(slots=True)
class Selector:
    """The rules in force and what they have to remember."""

    rules: HarvestRules
    views: SeenHashes = field(default_factory=SeenHashes)
    spent: Budget = field(default_factory=Budget)

    def full(self, now: float) -> str | None:
        """Return the cap that leaves no room for any sample, so that a photo need not be looked at."""
        return self.spent.full(self.rules.caps, now)

    def choose(self, photo_id: str, device: str, view: int, said: ModelScores, now: float) -> Decision:
        """Decide whether a photo is worth harvesting; remembers no more than what the device showed last.

        Args:
            photo_id: Decides the draw for the audit.
            device: Whose photo it is.
            view: Its difference hash.
            said: By the model.
            now: Seconds of a monotonic clock.
        """
        chosen = self._choose(photo_id, device, view, said, now)
        self.views.show(device, view, said.label, now)
        if chosen.lane is None:
            return chosen
        refused = self.refusal(chosen.lane, said.label, 0, now)  # before the work of shrinking it
        return Decision(None, refused) if refused else chosen

    def _choose(self, photo_id: str, device: str, view: int, said: ModelScores, now: float) -> Decision:
        if drawn_for_audit(photo_id, self.rules.audit_share):
            return Decision(AUDIT)
        nearness = self.views.compare(device, view, said.label, self.rules, now)
        if nearness == "near":
            return Decision(None, "near-duplicate")
        return lane_of(said, self.rules, flipped=nearness == "flipped")

    def refusal(self, lane: str, label: str, size_bytes: int, now: float) -> str | None:
        """Return the quota or cap that a sample of this size would break, or None if it may go."""
        return self.spent.refusal(lane, label, size_bytes, self.rules, now)

    def record(self, sample: HarvestedSample) -> None:
        """Remember a sample that is on its way."""
        self.views.remember(sample)
        self.spent.spend(sample)

    def restore(self, samples: Iterable[HarvestedSample]) -> None:
        """Remember what earlier runs harvested, the oldest first."""
        for sample in samples:
            self.views.remember(sample)
            if not sample.refunded:
                self.spent.spend(sample)
