"""A head for each group of devices, where held-out labels of the group prefer it to the shared head.

The shared head's answers to photos that it was not trained on are what a group's head starts from, so it
learns only what the devices of the group have of their own. Plain functions on arrays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cloud.modeling.arrays import Floats, Ints, softmax
from cloud.modeling.linear_head import fit_temperature
from cloud.modeling.offset_head import Inputs, apply_head, fit_offset, log_probabilities, packed
from cloud.training.sample_weights import folds
from schemas.device_groups import NO_GROUP
from schemas.group_heads import MAX_HEADS, MIN_PROBABILITY, GroupHead

MIN_OWN_LABELS = 20
"""Held-out labels of a group from which on it may get a head of its own."""
MIN_TRIED_LABELS = 10
"""Held-out labels of a group from which on the heads of other groups are tried."""
OWN = "own"
ERROR = 0.05
"""Probability that a head is taken which is no better, for each group (one-sided)."""


@dataclass(frozen=True, slots=True)
class GroupFit:
    """What was found for one group.

    Attributes:
        name: of the group.
        labels: human labels of the group that are held out.
        source: `OWN`, the name of the group whose head is best, or empty: the shared head answers.
        head: the head; None if the shared one answers.
        loss: of the shared head on the held-out labels, None without any.
        group_loss: of the best head tried, also where it is not taken; None if none was.
        accuracy: of the shared head on them.
        group_accuracy: of that head.
        reason: why the shared head answers; empty if it does not.
    """

    name: str
    labels: int
    source: str = ""
    head: GroupHead | None = None
    loss: float | None = None
    group_loss: float | None = None
    accuracy: float | None = None
    group_accuracy: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class GroupFits:
    """The heads of all groups.

    Attributes:
        fits: by group, sorted by name.
        held_out: `[M, K]`, probabilities of the held-out photos by heads that were fitted without them.
    """

    fits: tuple[GroupFit, ...]
    held_out: Floats

    @property
    def heads(self) -> dict[str, GroupHead]:
        """Heads by group, of those that have one."""
        return {fit.name: fit.head for fit in self.fits if fit.head is not None}


def fit_groups(
    groups: Sequence[str],
    embeddings: NDArray[np.floating],
    probabilities: Floats,
    labels: Ints,
    *,
    whitened: bool = False,
    duplicates: Ints | None = None,
    seed: int = 0,
) -> GroupFits:
    """Fit a head for each group, try the heads of other groups, and keep what is significantly better.

    Args:
        groups: of each held-out photo, `[M]`; empty for a photo of no group.
        embeddings: `[M, D]`.
        probabilities: `[M, K]`, calibrated, by shared heads that were not trained on the photo.
        labels: `[M]`, by people.
        whitened: whether the shared head is on whitened principal components.
        duplicates: numbers of the groups of near-duplicates, `[M]`; None if no two photos show the same.
        seed: of the folds.
    """
    names = sorted(set(groups) - {NO_GROUP})
    if not names:
        return GroupFits((), probabilities)
    inputs = Inputs.measured_on(embeddings, whitened=whitened)
    every, of = inputs.of(embeddings), np.array(groups)
    likely = log_probabilities(probabilities)

    def members(name: str) -> "_Members":
        at = np.flatnonzero(of == name)
        shows = None if duplicates is None else duplicates[at]
        return _Members(at, every[at], embeddings[at], probabilities[at], likely[at], labels[at], shows)

    by_name = {name: members(name) for name in names}
    own = {name: _fit_own(one, inputs, seed) for name, one in by_name.items()}
    # Those that their own group prefers.
    zoo = {name: one for name, one in own.items() if one and by_name[name].prefer(one, tried=1)}
    found = [_choose(name, by_name[name], own[name], zoo) for name in names]
    answers = probabilities.copy()
    for fit, candidate in found:
        if candidate is not None:
            answers[by_name[fit.name].at] = candidate.answers
    kept = _limited([fit for fit, _ in found])
    return GroupFits(kept, answers)


@dataclass(frozen=True, slots=True)
class _Members:
    """The held-out photos of one group, `[n]` each."""

    at: Ints
    inputs: Floats
    embeddings: NDArray[np.floating]
    probabilities: Floats
    likely: Floats
    labels: Ints
    duplicates: Ints | None

    def losses(self, probabilities: Floats) -> Floats:
        """Return the loss of each label."""
        chosen = probabilities[np.arange(len(self.labels)), self.labels]
        return -np.log(np.maximum(chosen, MIN_PROBABILITY))

    def accuracy(self, probabilities: Floats) -> float:
        """Return the share of right answers."""
        return float((probabilities.argmax(axis=1) == self.labels).mean())

    def loss(self, candidate: "_Candidate") -> float:
        """Return the mean loss with a head."""
        return float(self.losses(candidate.answers).mean())

    def prefer(self, candidate: "_Candidate", tried: int) -> bool:
        """Decide whether the gain of the best of several heads over the shared one is no chance.

        A t-test of the paired losses, with Bonferroni's correction for those that were tried.
        """
        from scipy.stats import t  # noqa: PLC0415 - a second to load

        gains = self.losses(self.probabilities) - self.losses(candidate.answers)
        error = float(gains.std(ddof=1)) / len(gains) ** 0.5
        return float(gains.mean()) > float(t.ppf(1 - ERROR / tried, len(gains) - 1)) * error


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A head that a group may get, with its answers to the group's photos by fits without them."""

    source: str
    head: GroupHead
    answers: Floats


def _fit_own(members: _Members, inputs: Inputs, seed: int) -> _Candidate | None:
    """Cross-validate a group's own head, then fit it on all its labels; None if they are too few."""
    labels = members.labels
    if len(labels) < MIN_OWN_LABELS or len(np.unique(labels)) < 2:  # noqa: PLR2004 - one class tells nothing apart
        return None
    logits = members.likely.copy()
    splits = list(folds(labels, seed, members.duplicates))
    if not splits:
        return None
    for training, held_out in splits:
        head = fit_offset(members.inputs[training], members.likely[training], labels[training])
        logits[held_out] += head.logits(members.inputs[held_out])
    temperature = fit_temperature(logits, labels)
    head = inputs.fold(fit_offset(members.inputs, members.likely, labels))
    return _Candidate(OWN, packed(head, temperature), softmax(logits / temperature))


def _choose(
    name: str, members: _Members, own: _Candidate | None, zoo: Mapping[str, _Candidate]
) -> tuple[GroupFit, _Candidate | None]:
    """Choose between a group's own head, the heads of other groups, and the shared one."""
    fit = GroupFit(
        name,
        len(members.labels),
        loss=float(members.losses(members.probabilities).mean()),
        accuracy=members.accuracy(members.probabilities),
    )
    if fit.labels < MIN_TRIED_LABELS:
        few = f"{fit.labels} held-out labels are too few: {MIN_TRIED_LABELS} are needed"
        return replace(fit, reason=few), None
    # They have not seen any photo of this group.
    others = [
        replace(one, source=other, answers=apply_head(one.head, members.probabilities, members.embeddings))
        for other, one in zoo.items()
        if other != name
    ]
    tried = [*others, *([] if own is None else [own])]
    if not tried:
        few = f"{fit.labels} held-out labels are too few for a head of its own, and no other group has one"
        return replace(fit, reason=few), None
    better = [one for one in tried if members.prefer(one, tried=1 if one is own else len(others))]
    best = min(better or tried, key=members.loss)
    fit = replace(fit, group_loss=members.loss(best), group_accuracy=members.accuracy(best.answers))
    if not better:
        what = "its own head" if best is own else f"the head of {best.source}"
        return replace(fit, reason=f"{what} is not significantly better on its held-out labels"), None
    return replace(fit, source=best.source, head=best.head), best


def _limited(fits: Sequence[GroupFit]) -> tuple[GroupFit, ...]:
    """Leave out the heads that gain least, where there are more than a bundle may have."""
    own = [fit for fit in fits if fit.source]
    if len(own) <= MAX_HEADS:
        return tuple(fits)
    gain = {fit.name: fit.labels * ((fit.loss or 0.0) - (fit.group_loss or 0.0)) for fit in own}
    kept = set(sorted(gain, key=lambda name: -gain[name])[:MAX_HEADS])
    return tuple(
        fit
        if fit.name in kept or not fit.source
        else replace(fit, source="", head=None, reason=f"a version has at most {MAX_HEADS} heads")
        for fit in fits
    )
