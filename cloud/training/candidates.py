"""What people labelled, with the teacher's labels, with the lane auto: train all three, hold out, choose."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cloud.dataset.example import MIN_TEACHER_LABELS, Example, label_indices
from cloud.modeling.arrays import Floats, Ints, cross_entropy, softmax
from cloud.modeling.linear_head import fit_temperature
from cloud.progress import Progress
from cloud.training.learners import Fitted, Learner
from cloud.training.sample_weights import SOURCE_WEIGHTS, Mask, folds, training_weights

HUMAN = "human"
TEACHER = "human+teacher"
HARVESTED = "human+harvested"
CANDIDATES = (HUMAN, TEACHER, HARVESTED)
"""What a round tries: people's labels alone; with the teacher's for photos that the edge was not sure of; and
with the lane auto as well."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """What is known about the photos of a learner that may be trained on.

    Attributes:
        labels: `[N]`, in [0, classes).
        human: `[N]`, whether a person gave the label.
        teacher: `[N]`, whether the teacher did.
        auto: `[N]`, whether the photo is there only because the edge's model was sure of its label.
        weights: `[N]`, the examples' own weights, times those of their sources.
        classes: K.
        edge_alone: whether the edge's label may count without a teacher's: as long as there is none, and
            people have labelled too few samples to judge one.
    """

    labels: Ints
    human: Mask
    teacher: Mask
    auto: Mask
    weights: Floats
    classes: int
    edge_alone: bool = True

    @classmethod
    def of(cls, examples: Sequence[Example], classes: Sequence[str]) -> "Labelled":
        """Number the examples' labels by the classes."""
        taught = any(example.source == "teacher" for example in examples)
        judges = sum(example.human and example.sampled for example in examples)
        return cls(
            labels=label_indices(examples, classes),
            human=np.array([example.human for example in examples]),
            teacher=np.array([example.source == "teacher" for example in examples]),
            auto=np.array([example.auto for example in examples]),
            weights=np.array([example.weight * SOURCE_WEIGHTS[example.source] for example in examples]),
            classes=len(classes),
            edge_alone=not taught and judges < MIN_TEACHER_LABELS,
        )

    def weigh(self, positions: Ints) -> Floats:
        """Weigh the examples at `positions` against each other."""
        return training_weights(
            self.labels[positions], self.human[positions], self.weights[positions], self.classes
        )


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A candidate's answers to human labels that it was not trained on.

    Attributes:
        logits: `[M, K]`.
        labels: `[M]`.
    """

    logits: Floats
    labels: Ints

    @property
    def temperature(self) -> float:
        """What calibrates the answers; 1 without any."""
        return fit_temperature(self.logits, self.labels)

    @property
    def loss(self) -> float | None:
        """Mean negative log-likelihood after calibration."""
        if len(self.labels) == 0:
            return None
        truth = np.eye(self.logits.shape[1])[self.labels]
        return cross_entropy(softmax(self.logits / self.temperature), truth)

    @property
    def accuracy(self) -> float | None:
        """Share of right answers."""
        if len(self.labels) == 0:
            return None
        return float((self.logits.argmax(axis=1) == self.labels).mean())


def fit_candidates(learner: Learner, labelled: Labelled, human: Ints) -> dict[str, Fitted]:
    """Train on human labels, again with the teacher's labels, and again with the lane auto.

    A photo of the lane auto counts only where two models that were trained on different labels give it the
    same one: the edge's and the teacher, whose silence is a no; or, before there can be a teacher, the edge's
    and the first candidate. In the other lanes the teacher's labels are believed as they are.

    Args:
        learner: how to train.
        labelled: all labels.
        human: positions of the human labels to use.

    Returns:
        Candidates by name; one is absent if it has nothing to be trained on that the one before has not.
    """

    def fit(positions: Ints) -> Fitted:
        return learner.fit(positions, labelled.labels[positions], labelled.weigh(positions))

    first = fit(human)
    fitted = {HUMAN: first}
    taught = np.flatnonzero(labelled.teacher & ~labelled.auto)
    if len(taught):
        fitted[TEACHER] = fit(np.concatenate([human, taught]))
    auto = np.concatenate(
        [np.flatnonzero(labelled.teacher & labelled.auto), _confirmed(learner, labelled, first)]
    )
    if len(auto):
        fitted[HARVESTED] = fit(np.concatenate([human, taught, auto]))
    return fitted


def _confirmed(learner: Learner, labelled: Labelled, first: Fitted) -> Ints:
    """Return the photos that the first candidate gives the edge's label, where that may count alone."""
    alone = np.flatnonzero(labelled.auto & ~labelled.teacher & labelled.edge_alone)
    if len(alone) == 0:
        return alone
    agreed = learner.logits(first, alone).argmax(axis=1) == labelled.labels[alone]
    return alone[np.flatnonzero(agreed)]


def _standing_in(fitted: Mapping[str, Fitted], name: str) -> Fitted:
    """Return a candidate, or where it is absent the one before it."""
    until = CANDIDATES[: CANDIDATES.index(name) + 1]
    return next(fitted[other] for other in reversed(until) if other in fitted)


def cross_validate(
    learner: Learner, labelled: Labelled, *, seed: int, progress: Progress
) -> dict[str, HeldOut]:
    """Answer each human label by candidates that were trained without it.

    Where a fold has not all candidates, the answers of the one before stand in for what is absent.

    Args:
        learner: how to train.
        labelled: all labels.
        seed: decides the folds.
        progress: advances by folds.

    Returns:
        Per candidate, the same labels in the same order.
    """
    human = np.flatnonzero(labelled.human)
    splits = list(folds(labelled.labels[human], seed))[: learner.folds]
    if splits:
        progress.start("cross-validate", len(splits))
    parts: dict[str, list[Floats]] = {name: [] for name in CANDIDATES}
    for kept, held_out in splits:
        fitted = fit_candidates(learner, labelled, human[kept])
        for name, logits in parts.items():
            logits.append(learner.logits(_standing_in(fitted, name), human[held_out]))
        progress.advance()
    empty = np.zeros((0, labelled.classes))
    labels = labelled.labels[human[np.concatenate([[], *(h for _, h in splits)]).astype(np.int64)]]
    return {name: HeldOut(np.concatenate([empty, *logits]), labels) for name, logits in parts.items()}


def choose(fitted: Iterable[str], held_out: Mapping[str, HeldOut]) -> str:
    """Choose the candidate with the least held-out loss; of equals the one with the fewest labels by models.

    Without held-out labels, that is people's alone.
    """
    return min(fitted, key=lambda name: (held_out[name].loss or 0.0, CANDIDATES.index(name)))


def auto_helps(rounds: Iterable[Mapping[str, float | None]], patience: int = 2) -> bool:
    """Decide whether the lane auto stays on.

    Args:
        rounds: of each round in order, the candidates' held-out losses by name, as on the cards. A round that
            tried no candidate with the lane auto, or held no labels out, says nothing and is passed over.
        patience: rounds without help after which it is switched off.

    Returns:
        False if the last `patience` rounds that tell were all better, or as good, without the lane.
    """
    told = []
    for losses in rounds:
        auto = losses.get(HARVESTED)
        without = [loss for name, loss in losses.items() if name != HARVESTED and loss is not None]
        if auto is not None and without:
            told.append(auto < min(without))
    return len(told) < patience or any(told[-patience:])
