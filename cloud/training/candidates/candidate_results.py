"""The candidates of one backbone as trained and measured, and which of several backbones is the best."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cloud.dataset.example import Example
from cloud.modeling.arrays import Floats, softmax
from cloud.modeling.backbones import Backbone
from cloud.training.candidates.candidates import HeldOut
from cloud.training.candidates.learners import Fitted
from cloud.training.groups.fits import GroupFits

MIN_SCRATCH_LABELS = 300
"""Human labels from which on a network is trained from scratch in addition to a pretrained one."""
MIN_PRETRAINED_LABELS = 60
"""Human labels from which on another pretrained network is tried: fewer cannot rank two networks."""
ENOUGH = 0.95
"""Held-out accuracy of the pretrained network from which on the minutes of another training are saved."""
_SIGNIFICANT = 1.64
"""Standard errors of the difference of two losses above which it is significant (one-sided, 5 %)."""
_MIN_PROBABILITY = 1e-12


@dataclass(frozen=True, slots=True)
class CandidateResults:
    """Outcome of the candidates, the same in all workers of a team.

    Attributes:
        classes: in the order of the outputs.
        examples: in an order that depends only on their content.
        gold: the same.
        fitted: candidates by name.
        held_out: by candidate, answers to human labels that it was not trained on.
        on_gold: by candidate, logits on the gold set, `[N, K]`; empty without gold photos.
        chosen: name of the best candidate.
        training_embeddings: of the photos that the best candidate was trained on, `[n, D]`.
        backbone: of the candidates.
        whitened: whether the heads of all candidates are on whitened principal components.
        others: results of other backbones that were tried, and whose held-out loss is higher.
        groups: heads of groups of devices, in addition to that of the best candidate.
        gold_by_groups: probabilities on the gold set, `[N, K]`, with these heads; None without any.
    """

    classes: tuple[str, ...]
    examples: list[Example]
    gold: list[Example]
    fitted: dict[str, Fitted]
    held_out: dict[str, HeldOut]
    on_gold: dict[str, Floats]
    chosen: str
    training_embeddings: NDArray[np.float32]
    backbone: Backbone
    whitened: bool = False
    others: "tuple[CandidateResults, ...]" = ()
    groups: GroupFits = field(default_factory=GroupFits)
    gold_by_groups: Floats | None = None

    @property
    def chosen_fit(self) -> Fitted:
        """The best candidate."""
        return self.fitted[self.chosen]

    @property
    def chosen_held_out(self) -> HeldOut:
        """Held-out answers of the best candidate."""
        return self.held_out[self.chosen]

    @property
    def held_out_groups(self) -> list[str]:
        """Group of the device of each held-out photo."""
        return [self.examples[at].group for at in self.chosen_held_out.positions]

    @property
    def held_out_answers(self) -> Floats:
        """Calibrated probabilities of the held-out photos, `[M, K]`, as edges would answer them."""
        return self.groups.held_out(self.chosen_held_out.probabilities)

    @property
    def gold_answers(self) -> Floats | None:
        """Calibrated probabilities of the gold photos, `[N, K]`, as edges would answer; None without any."""
        logits = self.on_gold.get(self.chosen)
        if logits is None or self.gold_by_groups is not None:
            return self.gold_by_groups
        return softmax(logits / self.chosen_held_out.temperature)


def is_worth_trying(best: CandidateResults, other: Backbone) -> bool:
    """Decide whether another backbone is trained on the same labels.

    Args:
        best: Results of the backbones so far.
        other: The next one.

    Returns:
        True if it is another one, there are enough human labels to train it, and the best one so far makes
        mistakes on held-out labels.
    """
    accuracy = best.chosen_held_out.accuracy
    human = sum(example.human for example in best.examples)
    enough = human >= (MIN_PRETRAINED_LABELS if other.pretrained else MIN_SCRATCH_LABELS)
    return other.name != best.backbone.name and enough and accuracy is not None and accuracy < ENOUGH


def better(one: CandidateResults, other: CandidateResults) -> CandidateResults:
    """Return the results with the lower loss on the held-out labels that both have.

    The first one stays unless its loss is significantly higher: with another network, embeddings cannot be
    compared with earlier ones, which a difference within the noise is not worth.
    A training from scratch holds out one fold in five, one on a frozen network all of them.
    """
    winner, loser = (other, one) if is_better(other, one) else (one, other)
    return replace(winner, others=(*winner.others, replace(loser, others=()), *loser.others))


def is_better(one: CandidateResults, other: CandidateResults) -> bool:
    """Decide whether the loss on the held-out labels that both have is significantly lower."""
    first, second = one.chosen_held_out, other.chosen_held_out
    both = np.intersect1d(first.positions, second.positions)
    gains = _losses(second.at(both)) - _losses(first.at(both))
    return len(gains) > 1 and bool(gains.mean() > _SIGNIFICANT * gains.std(ddof=1) / len(gains) ** 0.5)


def _losses(answers: HeldOut) -> Floats:
    """Return the calibrated loss of each held-out label, in the order of the positions."""
    likely = answers.probabilities[np.arange(len(answers.labels)), answers.labels]
    return -np.log(np.maximum(likely, _MIN_PROBABILITY))[np.argsort(answers.positions)]
