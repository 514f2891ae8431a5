"""Train candidates on different label sources, cross-validate them, and choose the best."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cloud.dataset.example import MIN_TEACHER_LABELS, Example, label_indices
from cloud.modeling.arrays import Floats, Ints, cross_entropy, softmax
from cloud.modeling.linear_head import fit_temperature
from cloud.progress import Progress
from cloud.training.candidates.learners import Fitted, Learner
from cloud.training.sample_weights import SOURCE_WEIGHTS, Mask, folds, training_weights

HUMAN = "human"
TEACHER = "human+teacher"
HARVESTED = "human+harvested"
CANDIDATES = (HUMAN, TEACHER, HARVESTED)
"""Human labels alone; with the teacher's labels outside of the lane auto; with the lane auto too."""
PATIENCE = 2
"""Rounds without an improvement after which the lane auto is switched off."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labels and weights of the photos that a learner may be trained on.

    Attributes:
        labels: `[N]`, in [0, classes).
        human: `[N]`, True if a person gave the label.
        teacher: `[N]`, True if the teacher gave it, or the device that took the photo.
        auto: `[N]`, True for a photo of the lane auto that no person labelled.
        weights: `[N]`, the examples' weights times those of their sources.
        classes: K.
        edge_alone: whether the edge's label is used without the teacher's: only before the first teacher,
            while too few samples have human labels to validate one.
        groups: `[N]`, numbers of the groups of near-duplicates; None if no two photos show the same.
    """

    labels: Ints
    human: Mask
    teacher: Mask
    auto: Mask
    weights: Floats
    classes: int
    edge_alone: bool = True
    groups: Ints | None = None

    @classmethod
    def of(
        cls, examples: Sequence[Example], classes: Sequence[str], groups: Ints | None = None
    ) -> "Labelled":
        """Return the labels of examples, numbered in the order of the classes."""
        has_teacher = any(example.source == "teacher" for example in examples)
        labelled_samples = sum(example.human and example.sampled for example in examples)
        return cls(
            labels=label_indices(examples, classes),
            human=np.array([example.human for example in examples]),
            # A device labels its own photos: like a teacher's, its labels are not a person's.
            teacher=np.array([example.source in {"teacher", "device"} for example in examples]),
            auto=np.array([example.auto for example in examples]),
            weights=np.array([example.weight * SOURCE_WEIGHTS[example.source] for example in examples]),
            classes=len(classes),
            edge_alone=not has_teacher and labelled_samples < MIN_TEACHER_LABELS,
            groups=groups,
        )

    def without(self, held_out: Ints) -> "Labelled":
        """Return the labels without those by models of photos that show the same as held-out ones."""
        if self.groups is None:
            return self
        apart = ~np.isin(self.groups, self.groups[held_out])
        return replace(self, teacher=self.teacher & apart, auto=self.auto & apart)

    def weigh(self, positions: Ints) -> Floats:
        """Return the weights of the examples at `positions` in one training, `[n]`; they sum to 1."""
        return training_weights(
            self.labels[positions], self.human[positions], self.weights[positions], self.classes
        )


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A candidate's logits on human-labelled photos that it was not trained on.

    Attributes:
        logits: `[M, K]`.
        labels: `[M]`.
        positions: `[M]`, of the photos among all labelled ones; empty if unknown.
    """

    logits: Floats
    labels: Ints
    positions: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    def at(self, positions: Ints) -> "HeldOut":
        """Return the answers to the photos at some positions."""
        chosen = np.isin(self.positions, positions)
        return HeldOut(self.logits[chosen], self.labels[chosen], self.positions[chosen])

    @property
    def temperature(self) -> float:
        """Divisor that calibrates the logits; 1 without held-out labels."""
        return fit_temperature(self.logits, self.labels)

    @property
    def probabilities(self) -> Floats:
        """Calibrated probabilities, `[M, K]`."""
        return softmax(self.logits / self.temperature)

    @property
    def loss(self) -> float | None:
        """Mean negative log-likelihood at the most likely temperature, None without held-out labels."""
        if len(self.labels) == 0:
            return None
        truth = np.eye(self.logits.shape[1])[self.labels]  # one-hot
        temperature = fit_temperature(self.logits, self.labels, prior=False)
        return cross_entropy(softmax(self.logits / temperature), truth)

    @property
    def accuracy(self) -> float | None:
        """Share of correct answers, None without held-out labels."""
        if len(self.labels) == 0:
            return None
        return float((self.logits.argmax(axis=1) == self.labels).mean())


def fit_candidates(learner: Learner, labelled: Labelled, human: Ints) -> dict[str, Fitted]:
    """Train a candidate on human labels, one with the teacher's labels too, and one with the lane auto too.

    In the lane auto a label is used only if two models that were trained on different labels agree on it: the
    edge's and the teacher, where a teacher abstention counts as disagreement; or, before there can be a
    teacher, the edge's and the first candidate. In other lanes the teacher's labels are used as they are.

    Args:
        learner: how to train.
        labelled: all labels.
        human: positions of the human labels to use.

    Returns:
        Candidates by name; one is absent if it would be trained on the same photos as the one before.
    """

    def fit(positions: Ints) -> Fitted:
        return learner.fit(positions, labelled.labels[positions], labelled.weigh(positions))

    first = fit(human)
    fitted = {HUMAN: first}
    # Outside of the lane auto the edge was not confident, so its label does not count as a second opinion.
    taught = np.flatnonzero(labelled.teacher & ~labelled.auto)
    if len(taught):
        fitted[TEACHER] = fit(np.concatenate([human, taught]))
    # `training_set` leaves out photos of the lane auto where teacher and edge disagree: these here agree.
    auto = np.concatenate(
        [np.flatnonzero(labelled.teacher & labelled.auto), _confirmed(learner, labelled, first)]
    )
    if len(auto):
        fitted[HARVESTED] = fit(np.concatenate([human, taught, auto]))
    return fitted


def _confirmed(learner: Learner, labelled: Labelled, first: Fitted) -> Ints:
    """Return the photos whose edge label the first candidate agrees with, while there can be no teacher."""
    unconfirmed = np.flatnonzero(labelled.auto & ~labelled.teacher & labelled.edge_alone)
    if len(unconfirmed) == 0:
        return unconfirmed
    agrees = learner.logits(first, unconfirmed).argmax(axis=1) == labelled.labels[unconfirmed]
    return unconfirmed[np.flatnonzero(agrees)]


def _candidate_or_previous(fitted: Mapping[str, Fitted], name: str) -> Fitted:
    """Return a candidate, or the one before it if it is absent."""
    up_to = CANDIDATES[: CANDIDATES.index(name) + 1]
    return next(fitted[other] for other in reversed(up_to) if other in fitted)


def cross_validate(
    learner: Learner, labelled: Labelled, *, seed: int, progress: Progress
) -> dict[str, HeldOut]:
    """Answer each human-labelled photo with candidates that were trained without it and its near-duplicates.

    Args:
        learner: how to train.
        labelled: all labels.
        seed: of the folds.
        progress: advances by folds.

    Returns:
        By candidate; all have the same labels in the same order.
    """
    human = np.flatnonzero(labelled.human)
    # Only human labels are held out: labels by models may be wrong, and would reward agreeing with them.
    groups = None if labelled.groups is None else labelled.groups[human]
    splits = list(folds(labelled.labels[human], seed, groups))[: learner.folds]
    if splits:
        progress.start("cross-validate", len(splits))
    parts: dict[str, list[Floats]] = {name: [] for name in CANDIDATES}
    for training, held_out in splits:
        fitted = fit_candidates(learner, labelled.without(human[held_out]), human[training])
        for name, logits in parts.items():
            # A fold may lack a candidate; losses are comparable only over the same labels.
            logits.append(learner.logits(_candidate_or_previous(fitted, name), human[held_out]))
        progress.advance()
    empty = np.zeros((0, labelled.classes))  # without folds, concatenate would have nothing to join
    positions = human[np.concatenate([[], *(h for _, h in splits)]).astype(np.int64)]
    labels = labelled.labels[positions]
    return {
        name: HeldOut(np.concatenate([empty, *logits]), labels, positions) for name, logits in parts.items()
    }


def choose(fitted: Iterable[str], held_out: Mapping[str, HeldOut]) -> str:
    """Return the candidate with the lowest held-out loss; of equals, the one with fewest labels by models.

    Without held-out labels, that is the one of human labels alone.
    """
    # The position breaks ties: fewer labels by models is the safer choice.
    return min(fitted, key=lambda name: (held_out[name].loss or 0.0, CANDIDATES.index(name)))


def auto_helps(rounds: Iterable[Mapping[str, float | None]]) -> bool:
    """Decide whether the lane auto stays on.

    Args:
        rounds: by round, oldest first, the candidates' held-out losses by name, as on the cards. Rounds
            without a candidate with the lane auto, or without held-out labels, are ignored.

    Returns:
        False if in none of the last `PATIENCE` rounds the lane lowered the loss.
    """
    helped = []
    for losses in rounds:
        auto = losses.get(HARVESTED)
        without = [loss for name, loss in losses.items() if name != HARVESTED and loss is not None]
        if auto is not None and without:
            helped.append(auto < min(without))
    return len(helped) < PATIENCE or any(helped[-PATIENCE:])
