"""Choose the lane of a photo by the model's scores and the harvest rules: plain functions.

The confidence chooses a lane, not a yes or no: training on the confident photos alone confirms the model's
own mistakes.
"""

import hashlib
from typing import NamedTuple, Protocol

from schemas.lanes import AUTO, HARD, Lane
from schemas.policy_rules import HarvestRules
from schemas.uncertainty import uncertainty

_HASH_VALUES = 1 << 64


class ModelScores(Protocol):
    """Inputs of the lane decision, as in `edge.serving.prediction`. NaN counts as uncertain."""

    @property
    def label(self) -> str:
        """The most probable class."""

    @property
    def confidence(self) -> float:
        """Its calibrated probability."""

    @property
    def margin(self) -> float:
        """That probability less the second one's."""

    @property
    def entropy(self) -> float:
        """Entropy of all probabilities, normalised to 1."""

    @property
    def novelty(self) -> float | None:
        """Scaled distance to the training photos; above 1 is out of distribution, None if unknown."""


class Decision(NamedTuple):
    """Either the lane to harvest the photo in, or the reason not to."""

    lane: Lane | None
    refused: str | None = None


def drawn_for_audit(photo_id: str, share: float, key: bytes = b"") -> bool:
    """Return True for a uniform random share of all photos, independent of the model.

    Args:
        photo_id: Its hash decides, so a photo that is sent again gets the same answer.
        share: 0 to 1.
        key: Random and secret, at most 64 bytes: a device that knew it could choose ids that are drawn.
    """
    digest = hashlib.blake2b(photo_id.encode(), digest_size=8, key=key, person=b"audit").digest()
    return int.from_bytes(digest, "big") < share * _HASH_VALUES


def lane_of(scores: ModelScores, rules: HarvestRules, *, flipped: bool = False) -> Decision:
    """Return the lane of a photo by its scores.

    Args:
        scores: Predicted by the model.
        rules: In force.
        flipped: Whether nearly the same view had another label before; then one of the two is wrong.
    """
    if flipped or _is_uncertain(scores, rules):
        return Decision(HARD)
    threshold = rules.auto_by_class.get(scores.label, rules.auto_confidence)
    if not scores.confidence >= threshold:  # not `<`, which is False for NaN
        return Decision(None, "between-thresholds")
    return Decision(AUTO) if rules.auto else Decision(None, "auto-off")


def _is_uncertain(scores: ModelScores, rules: HarvestRules) -> bool:
    # Comparisons with NaN are False, so NaN is never certain.
    certain = uncertainty(scores.confidence, scores.margin, scores.entropy) <= rules.uncertain_above
    known = scores.novelty is None or scores.novelty <= rules.hard_novelty
    return not (certain and known)
