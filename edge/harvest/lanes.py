"""Which lane a photo is worth: plain functions of what the model says and of the rules.

The scores choose a lane, not a yes or no: a rule that keeps what the model is sure of confirms its mistakes.
"""

import hashlib
from typing import NamedTuple, Protocol

from schemas.lanes import AUTO, HARD, Lane
from schemas.messages import HarvestRules
from schemas.uncertainty import uncertainty

_DRAWS = 1 << 64


class ModelScores(Protocol):
    """Inputs of the lane decision (`edge.serving.prediction.Prediction`). NaN counts as uncertain."""

    @property
    def label(self) -> str:
        """The most probable class."""

    @property
    def confidence(self) -> float:
        """Its calibrated probability."""

    @property
    def margin(self) -> float:
        """That, less the next one's."""

    @property
    def entropy(self) -> float:
        """Of all probabilities, normalised to 1."""

    @property
    def novelty(self) -> float | None:
        """Above 1 the model has hardly seen the like; None if it does not say."""


class Decision(NamedTuple):
    """Either the lane to harvest the photo in, or the reason why not."""

    lane: Lane | None
    refused: str | None = None


def drawn_for_audit(photo_id: str, share: float) -> bool:
    """Tell whether a photo is in the audit: a uniform share of all, whatever the model says.

    Decided by a hash of its id, so that a photo that is sent again is drawn again, at every node.
    """
    digest = hashlib.blake2b(photo_id.encode(), digest_size=8, person=b"audit").digest()
    return int.from_bytes(digest, "big") < share * _DRAWS


def lane_of(said: ModelScores, rules: HarvestRules, *, flipped: bool = False) -> Decision:
    """Return the lane by what the model says.

    Args:
        said: By the model.
        rules: In force.
        flipped: Whether it called nearly the same view another name before.
    """
    if flipped or _doubtful(said, rules):
        return Decision(HARD)
    if not said.confidence >= rules.auto_by_class.get(said.label, rules.auto_confidence):
        return Decision(None, "between-thresholds")
    return Decision(AUTO) if rules.auto else Decision(None, "auto-off")


def _doubtful(said: ModelScores, rules: HarvestRules) -> bool:
    """Tell whether a person's label would teach much. Each comparison is False for what is no number."""
    certain = uncertainty(said.confidence, said.margin, said.entropy) <= rules.uncertain_above and (
        said.novelty is None or said.novelty <= rules.hard_novelty
    )
    return not certain
