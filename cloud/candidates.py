"""What people labelled, with and without what was harvested: train both, hold out, choose."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cloud.examples import Example
from cloud.head import Floats, Ints, cross_entropy, fit_temperature, softmax
from cloud.learners import Fitted, Learner
from cloud.progress import Progress
from cloud.recipe import Mask, folds, training_weights

HUMAN = "human"
HARVESTED = "human+harvested"


def label_numbers(examples: Sequence[Example], classes: Sequence[str]) -> Ints:
    """Return the position of each example's label among the classes: `[N]`."""
    position = {name: index for index, name in enumerate(classes)}
    return np.array([position[example.label] for example in examples], np.int64)


@dataclass(frozen=True, slots=True)
class Labelled:
    """What is known about the photos of a learner that may be trained on.

    Attributes:
        labels: `[N]`, in [0, classes).
        human: `[N]`, whether a person gave the label.
        weights: `[N]`, the examples' own weights.
        classes: K.
    """

    labels: Ints
    human: Mask
    weights: Floats
    classes: int

    @classmethod
    def of(cls, examples: Sequence[Example], classes: Sequence[str]) -> "Labelled":
        """Number the examples' labels by the classes."""
        return cls(
            labels=label_numbers(examples, classes),
            human=np.array([example.human for example in examples]),
            weights=np.array([example.weight for example in examples]),
            classes=len(classes),
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
    """Train on human labels, and again with the harvested photos that this first one confirms.

    A harvested photo counts where two models that were trained on different labels give it the same
    one: the edge's model that harvested it, and the one just trained on all human labels.

    Args:
        learner: how to train.
        labelled: all labels.
        human: positions of the human labels to use.

    Returns:
        Candidates by name; the second is absent if nothing is harvested or nothing confirmed.
    """
    first = learner.fit(human, labelled.labels[human], labelled.weigh(human))
    fitted = {HUMAN: first}
    harvested = np.flatnonzero(~labelled.human)
    if len(harvested):
        answers = learner.logits(first, harvested).argmax(axis=1)
        confirmed = harvested[answers == labelled.labels[harvested]]
        if len(confirmed):
            chosen = np.concatenate([human, confirmed])
            fitted[HARVESTED] = learner.fit(chosen, labelled.labels[chosen], labelled.weigh(chosen))
    return fitted


def cross_validate(
    learner: Learner, labelled: Labelled, *, seed: int, progress: Progress
) -> dict[str, HeldOut]:
    """Answer each human label by candidates that were trained without it.

    Where a fold has no second candidate, the first one's answers stand in for it.

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
    parts: dict[str, list[Floats]] = {HUMAN: [], HARVESTED: []}
    for kept, held_out in splits:
        fitted = fit_candidates(learner, labelled, human[kept])
        for name, logits in parts.items():
            logits.append(learner.logits(fitted.get(name, fitted[HUMAN]), human[held_out]))
        progress.advance()
    empty = np.zeros((0, labelled.classes))
    labels = labelled.labels[human[np.concatenate([[], *(h for _, h in splits)]).astype(np.int64)]]
    return {name: HeldOut(np.concatenate([empty, *logits]), labels) for name, logits in parts.items()}


def choose(fitted: Iterable[str], held_out: Mapping[str, HeldOut]) -> str:
    """Choose the candidate with the least held-out loss; without held-out labels, people's alone."""
    return min(fitted, key=lambda name: (held_out[name].loss or 0.0, name != HUMAN))
