"""Train the candidates of a version and evaluate them: the part of a training that all workers share."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from cloud.dataset.example import Example, TrainingError, class_names, label_indices, sorted_by_content
from cloud.evaluation.promotion_gate import GateLimits
from cloud.modeling.alignment import Moments, align, fold, measure_moments, moments_by_group
from cloud.modeling.arrays import Floats, Ints, softmax
from cloud.modeling.backbones import Backbone, get_backbone, weights_digest
from cloud.modeling.offset_head import answer_by_groups, centred_logits, log_probabilities, packed
from cloud.progress import NoProgress, Progress
from cloud.reporting.loss_curves import LossCurves
from cloud.training.candidates import HeldOut, Labelled, choose, cross_validate, fit_candidates
from cloud.training.distributed import Team, alone
from cloud.training.groups.fits import Aligned, GroupFits, confirmed_on_gold, fit_groups
from cloud.training.groups.sightings import Sightings
from cloud.training.learners import Fitted, FrozenLearner, Learner, learner_for
from cloud.training.photo_check import PhotoChecker
from schemas.groups.membership import NO_GROUP

MIN_SCRATCH_LABELS = 300
"""Human labels from which on a network is trained from scratch in addition to a pretrained one."""
MIN_PRETRAINED_LABELS = 60
"""Human labels from which on another pretrained network is tried: fewer cannot rank two networks."""
MIN_WHITENED_LABELS = 40
"""Human labels from which on whitened heads are tried: few held-out labels would choose by chance."""
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


def evaluate_candidates(
    examples: Sequence[Example],
    gold: Sequence[Example],
    *,
    backbone: str,
    cache_dir: Path,
    also: Sequence[str] = (),
    classes: Sequence[str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    team: Team | None = None,
    curves: LossCurves | None = None,
    sightings: Sightings | None = None,
    embed: Callable[[str], object] | None = None,
) -> CandidateResults:
    """Train the candidates and evaluate them on held-out labels and on the gold set.

    This is the only part that needs the whole team: the first worker calls `train`, each other one this
    function, with the same examples and arguments. `train` describes the arguments;
    `curves` receives the losses of trainings from scratch, `sightings` has embeddings by group of devices.
    """
    progress, team = progress or NoProgress(), team or alone()
    # The order decides folds and batches: sorted, the same photos give the same model under any ids.
    examples, gold = sorted_by_content(examples), sorted_by_content(gold)
    names = class_names(examples, classes)
    _check_gold(gold, names)
    check_unseen("gold", gold, examples)

    def evaluate(plan: Backbone) -> CandidateResults:
        learner = learner_for(
            plan,
            [*examples, *gold],
            len(names),
            trainable=len(examples),
            cache_dir=cache_dir,
            seed=seed,
            progress=progress,
            team=team,
            curves=curves,
        )
        seen = None
        if sightings is not None and isinstance(learner, FrozenLearner):
            seen = sightings.by(plan.name, weights_digest(learner.network))
        return evaluate_backbone(
            plan,
            learner,
            names,
            examples,
            gold,
            groups=groups,
            sightings=seen or {},
            seed=seed,
            progress=progress,
        )

    groups = PhotoChecker(get_backbone(backbone), cache_dir).groups(examples, progress)
    others = [get_backbone(name) for name in also]  # an unknown name fails before the first training
    best = evaluate(get_backbone(backbone))
    for name, other in zip(also, others, strict=True):
        # All workers train it, or none.
        if team.agree(is_worth_trying(best, other)):
            if embed is not None:
                embed(name)
            best = better(best, evaluate(other))
    return best


def evaluate_backbone(
    backbone: Backbone,
    learner: Learner,
    classes: tuple[str, ...],
    examples: list[Example],
    gold: list[Example],
    *,
    groups: Ints | None = None,
    sightings: Mapping[str, NDArray[np.float32]] = MappingProxyType({}),
    seed: int,
    progress: Progress,
) -> CandidateResults:
    """Train the candidates on one backbone and evaluate them; on a frozen one, with both kinds of head.

    Args:
        backbone: the backbone.
        learner: how to train; it knows the examples by their position, then the gold photos.
        classes: in the order of the outputs.
        examples: photos to train on.
        gold: photos to measure on; may be empty.
        groups: of near-duplicates among the examples, as `PhotoChecker.groups` numbers them.
        sightings: embeddings by this backbone of photos without labels, by group of devices.
        seed: of every random decision.
        progress: receives the steps.
    """
    labelled = Labelled.of(examples, classes, groups)
    human = np.flatnonzero(labelled.human)

    def evaluate(learner: Learner, *, whitened: bool = False) -> CandidateResults:
        # Before the candidates are fitted on everything: their temperature comes from held-out answers.
        held_out = cross_validate(learner, labelled, seed=seed, progress=progress)
        fitted = fit_candidates(learner, labelled, human)
        # The learner knows photos by position: the gold photos come after the examples.
        gold_positions = len(examples) + np.arange(len(gold))
        on_gold = {name: learner.logits(fitted[name], gold_positions) for name in fitted} if gold else {}
        chosen = choose(fitted, held_out)
        # Each photo once: from scratch, embedding a repeated position would run the network again.
        embedded = learner.embeddings(fitted[chosen], np.unique(fitted[chosen].positions))
        return CandidateResults(
            classes, examples, gold, fitted, held_out, on_gold, chosen, embedded, backbone, whitened
        )

    plain = evaluate(learner)
    if not isinstance(learner, FrozenLearner):
        return with_answer_heads(plain, duplicates=groups, seed=seed)
    if len(human) < MIN_WHITENED_LABELS:
        chosen = plain
    else:
        whitened = evaluate(replace(learner, whitened=True), whitened=True)
        chosen = whitened if _is_better(whitened, plain) else plain
    names = [photo.group for photo in (*examples, *gold)]
    if not any(names):
        return chosen
    aligned_learner, moments = align_learner(learner, names, sightings)
    tried = [evaluate(aligned_learner)]
    if len(human) >= MIN_WHITENED_LABELS:
        tried.append(evaluate(replace(aligned_learner, whitened=True), whitened=True))
    return with_groups(chosen, learner, _best(tried), moments, duplicates=groups, seed=seed)


def align_learner(
    learner: FrozenLearner, groups: Sequence[str], sightings: Mapping[str, NDArray[np.float32]]
) -> tuple[FrozenLearner, dict[Hashable, Moments]]:
    """Return a learner of heads on aligned embeddings, and the moments of each group.

    Args:
        learner: on the embeddings as they are.
        groups: of each of its photos; those of no group are aligned by each other.
        sightings: further embeddings by group, of photos without labels: few have noisy moments.
    """
    trainable = len(learner.features if learner.copies is None else learner.copies)
    width = learner.features.shape[1]
    further = [(group, one) for group, some in sightings.items() for one in some if len(one) == width]
    measured = np.concatenate([learner.features[:trainable], *(one[None] for _, one in further)])
    moments = moments_by_group(measured, [*groups[:trainable], *(group for group, _ in further)])
    overall = measure_moments(measured)
    moments = {group: moments.get(group, overall) for group in {*moments, *groups}}
    copies = None if learner.copies is None else align(learner.copies, groups[:trainable], moments)
    return replace(learner, features=align(learner.features, groups, moments), copies=copies), moments


def _best(tried: Sequence[CandidateResults]) -> CandidateResults:
    return min(tried, key=lambda one: one.chosen_held_out.loss or 0.0)


def with_groups(
    results: CandidateResults,
    learner: FrozenLearner,
    aligned: CandidateResults,
    moments: Mapping[Hashable, Moments],
    *,
    duplicates: Ints | None,
    seed: int,
) -> CandidateResults:
    """Choose the heads of groups of devices, on embeddings of a frozen network.

    Args:
        results: of the shared head.
        learner: has the embeddings.
        aligned: of the head on aligned embeddings.
        moments: by group.
        duplicates: numbers of the groups of near-duplicates among the examples.
        seed: of folds and bootstrap.
    """
    held_out, groups = results.chosen_held_out, results.held_out_groups
    if not any(groups):
        return results
    by_all = aligned.chosen_held_out
    shared_head = results.chosen_fit.head.cooled(held_out.temperature)
    aligned_head = aligned.chosen_fit.head.cooled(by_all.temperature)
    fits = fit_groups(
        groups,
        learner.features[held_out.positions],
        held_out.probabilities,
        held_out.labels,
        shared=shared_head,
        aligned=Aligned(
            by_all.probabilities,
            {
                name: packed(fold(aligned_head, moments[name]).beyond(shared_head), 1.0)
                for name in set(groups) - {NO_GROUP}
            },
        ),
        whitened=results.whitened,
        duplicates=None if duplicates is None else duplicates[held_out.positions],
        seed=seed,
    )
    embedded = learner.features[len(results.examples) + np.arange(len(results.gold))]
    return _judged_on_gold(replace(results, groups=fits), embedded, seed)


def with_answer_heads(
    results: CandidateResults, *, duplicates: Ints | None = None, seed: int
) -> CandidateResults:
    """Choose heads of groups of devices that see the answers of the shared head, and no embedding.

    For a network whose held-out answers are not by heads on its own embeddings: that of a fold is another one
    where all is trained from scratch, but means the same by its answers. So does an adopted model.

    Args:
        results: of the shared head.
        duplicates: numbers of the groups of near-duplicates among the examples.
        seed: of folds and bootstrap.
    """
    held_out, groups = results.chosen_held_out, results.held_out_groups
    if not any(groups):
        return results
    probabilities = held_out.probabilities
    fits = fit_groups(
        groups,
        centred_logits(log_probabilities(probabilities)),
        probabilities,
        held_out.labels,
        width=results.backbone.embedding_dim,
        duplicates=None if duplicates is None else duplicates[held_out.positions],
        seed=seed,
    )
    gold = results.gold_answers
    answers = np.zeros((0, len(results.classes))) if gold is None else centred_logits(log_probabilities(gold))
    judged = _judged_on_gold(replace(results, groups=fits), answers, seed)
    shared = results.chosen_fit.head.cooled(held_out.temperature)
    return replace(judged, groups=judged.groups.for_embeddings(shared))


def _judged_on_gold(results: CandidateResults, seen: NDArray[np.floating], seed: int) -> CandidateResults:
    """Take back the heads that lose on gold, and answer the gold photos by the others.

    Args:
        results: with heads of groups.
        seen: what these see of each gold photo.
        seed: of the bootstrap.
    """
    shared, groups = results.gold_answers, [photo.group for photo in results.gold]
    if shared is None:
        return results
    truth = label_indices(results.gold, results.classes)
    limit = GateLimits().accuracy_loss
    fits = confirmed_on_gold(results.groups, groups, seen, shared, truth, loss=limit, seed=seed)
    answers = answer_by_groups(fits.heads, groups, shared, seen) if fits.heads else None
    return replace(results, groups=fits, gold_by_groups=answers)


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
    winner, loser = (other, one) if _is_better(other, one) else (one, other)
    return replace(winner, others=(*winner.others, replace(loser, others=()), *loser.others))


def _is_better(one: CandidateResults, other: CandidateResults) -> bool:
    """Decide whether the loss on the held-out labels that both have is significantly lower."""
    first, second = one.chosen_held_out, other.chosen_held_out
    both = np.intersect1d(first.positions, second.positions)
    gains = _losses(second.at(both)) - _losses(first.at(both))
    return len(gains) > 1 and bool(gains.mean() > _SIGNIFICANT * gains.std(ddof=1) / len(gains) ** 0.5)


def _losses(answers: HeldOut) -> Floats:
    """Return the calibrated loss of each held-out label, in the order of the positions."""
    likely = answers.probabilities[np.arange(len(answers.labels)), answers.labels]
    return -np.log(np.maximum(likely, _MIN_PROBABILITY))[np.argsort(answers.positions)]


def _check_gold(gold: Sequence[Example], classes: Sequence[str]) -> None:
    """Refuse gold photos of other classes."""
    for photo in gold:
        if photo.label not in classes:
            raise TrainingError(
                f"gold photo {photo.photo_id} has label {photo.label!r}, which is none of {list(classes)}",
                hint="label photos of that class for training too, or name the classes with --classes",
            )


def check_unseen(kind: str, photos: Sequence[Example], examples: Sequence[Example]) -> None:
    """Refuse photos for evaluation that the training would see."""
    # By content: the same photo may be stored twice, once as an import and once as a sample.
    seen = {example.image for example in examples}
    for photo in photos:
        if photo.image in seen:
            raise TrainingError(
                f"{kind} photo {photo.photo_id} is also a training example",
                hint="a photo is either trained on or evaluated on",
            )
