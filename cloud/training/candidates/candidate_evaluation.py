"""Train the candidates of a version and evaluate them: the part of a training that all workers share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from cloud.dataset.example import Example, TrainingError, class_names, sorted_by_content
from cloud.modeling.arrays import Ints
from cloud.modeling.backbones import Backbone, get_backbone, weights_digest
from cloud.progress import NoProgress, Progress
from cloud.reporting.loss_curves import LossCurves
from cloud.training.candidates.candidate_results import CandidateResults, better, is_better, is_worth_trying
from cloud.training.candidates.candidates import Labelled, choose, cross_validate, fit_candidates
from cloud.training.candidates.learners import FrozenLearner, Learner, learner_for
from cloud.training.distributed import Team, alone
from cloud.training.groups.heads import align_learner, with_answer_heads, with_groups
from cloud.training.groups.sightings import Sightings
from cloud.training.photo_check import PhotoChecker

MIN_WHITENED_LABELS = 40
"""Human labels from which on whitened heads are tried: few held-out labels would choose by chance."""


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
        chosen = whitened if is_better(whitened, plain) else plain
    names = [photo.group for photo in (*examples, *gold)]
    if not any(names):
        return chosen
    aligned_learner, moments = align_learner(learner, names, sightings)
    tried = [evaluate(aligned_learner)]
    if len(human) >= MIN_WHITENED_LABELS:
        tried.append(evaluate(replace(aligned_learner, whitened=True), whitened=True))
    return with_groups(chosen, learner, _best(tried), moments, duplicates=groups, seed=seed)


def _best(tried: Sequence[CandidateResults]) -> CandidateResults:
    return min(tried, key=lambda one: one.chosen_held_out.loss or 0.0)


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
