"""A head for each group of devices, where held-out labels of the group prefer it to the shared head.

The shared head's answers to photos that it was not trained on are what a group's head starts from, so it
learns only how the devices of the group differ. Plain functions on arrays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.paired_comparison import Comparison, PairedPredictions, compare
from cloud.modeling.arrays import Floats, Ints, softmax
from cloud.modeling.linear_head import Head, fit_temperature
from cloud.modeling.offset_head import (
    Inputs,
    apply_head,
    fit_offset,
    for_embeddings,
    log_probabilities,
    packed,
)
from cloud.training.sample_weights import folds
from schemas.groups.heads import MIN_PROBABILITY, GroupHead, most_heads
from schemas.groups.membership import NO_GROUP

MIN_OWN_LABELS = 20
"""Held-out labels of a group from which on it may get its own head."""
MIN_TRIED_LABELS = 10
"""Held-out labels of a group from which on the heads of other groups are tried."""
OWN, ALIGNED = "own", "aligned"
"""Whose head a group gets: fitted to its labels, or to those of all groups on aligned embeddings."""
ERROR = 0.05
"""Probability that a head is taken which is no better, for each group (one-sided)."""


@dataclass(frozen=True, slots=True)
class GroupFit:
    """What was found for one group.

    Attributes:
        name: of the group.
        labels: human labels of the group that are held out.
        source: of the best head: `OWN`, `ALIGNED` or the group that has it; empty if none was tried.
        head: the head; None if the shared one answers.
        loss: of the shared head on the held-out labels, None without any.
        group_loss: of the best head tried, also where it is not taken; None if none was.
        accuracy: of the shared head on them.
        group_accuracy: of that head.
        reason: why the shared head answers; empty if it does not.
        gold: comparison of the shared head (as champion) and the group's on the gold photos of the group;
            None without any, or without a head.
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
    gold: Comparison | None = None


@dataclass(frozen=True, slots=True)
class GroupFits:
    """The heads of all groups.

    Attributes:
        fits: by group, sorted by name.
        answers: by group, positions among the held-out photos and their probabilities by the best head,
            fitted without them.
    """

    fits: tuple[GroupFit, ...] = ()
    answers: Mapping[str, tuple[Ints, Floats]] = field(default_factory=dict)

    def held_out(self, probabilities: Floats) -> Floats:
        """Return the answers to all held-out photos, `[M, K]`, from those of the shared head."""
        answers = probabilities.copy()
        for name in self.heads:
            at, by_group = self.answers[name]
            answers[at] = by_group
        return answers

    @property
    def heads(self) -> dict[str, GroupHead]:
        """Heads by group, of those that have one."""
        return {fit.name: fit.head for fit in self.fits if fit.head is not None}

    def for_embeddings(self, shared: Head) -> "GroupFits":
        """Return the heads for embeddings, also those fitted to the shared head's answers."""
        fits = [
            fit if fit.head is None else replace(fit, head=for_embeddings(fit.head, shared))
            for fit in self.fits
        ]
        return replace(self, fits=tuple(fits))


@dataclass(frozen=True, slots=True)
class Aligned:
    """A head on embeddings that are standardised by the photos of each group.

    Attributes:
        probabilities: `[M, K]`, calibrated, of the held-out photos, by heads that were not trained on them.
        heads: by group, what it adds to the logits of the shared head for embeddings as they are.
    """

    probabilities: Floats
    heads: Mapping[str, GroupHead]


def fit_groups(
    groups: Sequence[str],
    embeddings: NDArray[np.floating],
    probabilities: Floats,
    labels: Ints,
    *,
    shared: Head | None = None,
    aligned: Aligned | None = None,
    whitened: bool = False,
    duplicates: Ints | None = None,
    width: int | None = None,
    seed: int = 0,
) -> GroupFits:
    """Choose a head for each group, where it is significantly better than the shared one.

    Three kinds are tried: the group's own, fitted to its labels with the shared head as its prior; the one on
    aligned embeddings, for which the labels of all groups count together; and the heads that other groups
    have, for a new device with its first labels.

    Args:
        groups: of each held-out photo, `[M]`; empty for a photo of no group.
        embeddings: `[M, D]`.
        probabilities: `[M, K]`, calibrated, by shared heads that were not trained on the photo.
        labels: `[M]`, by people.
        shared: the shared head, calibrated; None: a group's head sees the embeddings alone.
        aligned: the head on aligned embeddings; None if it is not tried.
        whitened: whether the shared head is on whitened principal components.
        duplicates: numbers of the groups of near-duplicates, `[M]`; None if no two photos show the same.
        width: length of the embeddings that edges see; None: D.
        seed: of the folds.
    """
    names = sorted(set(groups) - {NO_GROUP})
    if not names:
        return GroupFits()
    likely = log_probabilities(probabilities)
    inputs = Inputs.measured_on(embeddings, likely, shared=shared, whitened=whitened)
    every, of = inputs.of(embeddings, likely), np.array(groups)

    def members(at: Ints) -> "_Members":
        shows = None if duplicates is None else duplicates[at]
        return _Members(at, every[at], embeddings[at], probabilities[at], likely[at], labels[at], shows)

    by_name = {name: members(np.flatnonzero(of == name)) for name in names}
    # Its gain is small and the same in all groups: the few labels of one group could not show it.
    together = members(np.flatnonzero(of != NO_GROUP))
    helps = aligned is not None and together.prefer(aligned.probabilities[together.at])

    def of_its_own(name: str) -> list[_Candidate]:
        one, found = by_name[name], []
        own = _fit_own(one, inputs, seed)
        if own is not None:
            found.append(replace(own, taken=one.prefer(own.answers)))
        if aligned is not None and name in aligned.heads and len(one.labels) >= MIN_TRIED_LABELS:
            answers = aligned.probabilities[one.at]
            gains = helps and one.loss(answers) < one.loss(one.probabilities)
            found.append(_Candidate(ALIGNED, aligned.heads[name], answers, taken=gains))
        return found

    first = {name: of_its_own(name) for name in names}
    zoo = {
        name: min(taken, key=lambda one: by_name[name].loss(one.answers))
        for name, found in first.items()
        if (taken := [one for one in found if one.taken])
    }
    chosen = [_choose(name, by_name[name], first[name], zoo) for name in names]
    answers = {fit.name: (by_name[fit.name].at, one.answers) for fit, one in chosen if one is not None}
    most = most_heads(probabilities.shape[1], width or embeddings.shape[1])
    return GroupFits(_limited([fit for fit, _ in chosen], most), answers)


@dataclass(frozen=True, slots=True)
class _Members:
    """Held-out photos, `[n]` each."""

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

    def loss(self, probabilities: Floats) -> float:
        """Return the mean loss."""
        return float(self.losses(probabilities).mean())

    def accuracy(self, probabilities: Floats) -> float:
        """Return the share of right answers."""
        return float((probabilities.argmax(axis=1) == self.labels).mean())

    def prefer(self, answers: Floats, tried: int = 1) -> bool:
        """Decide whether the gain of the best of several heads over the shared one is significant.

        A t-test of the paired losses, with Bonferroni's correction for those that were tried.
        """
        from scipy.stats import t  # noqa: PLC0415 - a second to load

        gains = self.losses(self.probabilities) - self.losses(answers)
        if len(gains) < MIN_TRIED_LABELS:
            return False
        error = float(gains.std(ddof=1)) / len(gains) ** 0.5
        least = float(t.ppf(1 - ERROR / tried, len(gains) - 1)) * error
        return bool(gains.mean() > least)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A head that a group may get.

    Attributes:
        source: `OWN`, `ALIGNED` or the group that has it.
        head: the head.
        answers: to the group's held-out photos, by fits without them.
        taken: whether it is better than the shared one.
    """

    source: str
    head: GroupHead
    answers: Floats
    taken: bool = False


def _fit_own(members: _Members, inputs: Inputs, seed: int) -> _Candidate | None:
    """Cross-validate a group's own head, then fit it on all its labels; None if they are too few."""
    labels = members.labels
    if len(labels) < MIN_OWN_LABELS:
        return None
    logits = members.likely.copy()
    splits = list(folds(labels, seed, members.duplicates))
    if len(splits) < 2:  # noqa: PLR2004 - nothing is held out
        return None
    for training, held_out in splits:
        head = fit_offset(members.inputs[training], members.likely[training], labels[training])
        logits[held_out] += head.logits(members.inputs[held_out])
    temperature = fit_temperature(logits, labels)
    head = inputs.fold(fit_offset(members.inputs, members.likely, labels))
    return _Candidate(OWN, packed(head, temperature), softmax(logits / temperature))


def _choose(
    name: str, members: _Members, first: Sequence[_Candidate], zoo: Mapping[str, _Candidate]
) -> tuple[GroupFit, _Candidate | None]:
    """Choose between the heads that were fitted for a group, those of other groups, and the shared one."""
    fit = GroupFit(
        name,
        len(members.labels),
        loss=members.loss(members.probabilities),
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
    others = [replace(one, taken=members.prefer(one.answers, len(others))) for one in others]
    tried = [*first, *others]
    if not tried:
        few = f"{fit.labels} held-out labels are too few for a head of its own, and no other group has one"
        return replace(fit, reason=few), None
    # The heads of others are for a group that has none.
    better = [one for one in first if one.taken] or [one for one in others if one.taken]
    best = min(better or tried, key=lambda one: members.loss(one.answers))
    fit = replace(
        fit,
        source=best.source,
        group_loss=members.loss(best.answers),
        group_accuracy=members.accuracy(best.answers),
    )
    if not better:
        return replace(fit, reason="no head is significantly better on held-out labels"), None
    return replace(fit, head=best.head), best


def confirmed_on_gold(
    fits: GroupFits,
    groups: Sequence[str],
    embeddings: NDArray[np.floating],
    probabilities: Floats,
    truth: Ints,
    *,
    loss: float,
    seed: int = 0,
) -> GroupFits:
    """Take back the heads that lose on the gold photos of their group; without any, held-out labels decide.

    Args:
        fits: by held-out labels.
        groups: of each gold photo, `[N]`.
        embeddings: `[N, D]`.
        probabilities: `[N, K]`, calibrated, by the shared head.
        truth: `[N]`.
        loss: largest drop of the accuracy, in [0, 1].
        seed: of the bootstrap.
    """
    of = np.array(groups)

    def judged(fit: GroupFit) -> GroupFit:
        at = np.flatnonzero(of == fit.name)
        if fit.head is None or len(at) == 0:
            return fit
        answers = apply_head(fit.head, probabilities[at], embeddings[at])
        pair = PairedPredictions(probabilities[at], answers, truth[at], np.ones(len(at)))
        fit = replace(fit, gold=(found := compare(pair, seed)))
        if found.gain >= -loss:
            return fit
        change = f"{found.champion:.1%} → {found.challenger:.1%} on {found.photos} gold photos of the group"
        return replace(fit, head=None, reason=f"the head is worse: {change}")

    return replace(fits, fits=tuple(judged(fit) for fit in fits.fits))


def _limited(fits: Sequence[GroupFit], most: int) -> tuple[GroupFit, ...]:
    """Leave out the heads that gain least, where there are more than a bundle may have."""
    gain = {
        fit.name: fit.labels * ((fit.loss or 0.0) - (fit.group_loss or 0.0))
        for fit in fits
        if fit.head is not None
    }
    surplus = sorted(gain, key=lambda name: -gain[name])[most:]
    reason = f"a version has at most {most} heads of groups, those that gain most"
    return tuple(replace(fit, head=None, reason=reason) if fit.name in surplus else fit for fit in fits)
