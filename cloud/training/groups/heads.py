"""Choose the heads of groups of devices that a version gets in addition to its shared head."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cloud.dataset.example import label_indices
from cloud.evaluation.promotion_gate import GateLimits
from cloud.modeling.alignment import Moments, align, fold, measure_moments, moments_by_group
from cloud.modeling.arrays import Ints
from cloud.modeling.offset_head import answer_by_groups, centred_logits, log_probabilities, packed
from cloud.training.candidates.candidate_results import CandidateResults
from cloud.training.candidates.learners import FrozenLearner
from cloud.training.groups.fits import Aligned, confirmed_on_gold, fit_groups
from schemas.groups.membership import NO_GROUP


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
