"""Train one version from examples, and write it to the registry."""

import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from cloud.dataset.example import Example
from cloud.progress import NoProgress, Progress
from cloud.registry.registry import Champion, Registry
from cloud.reporting.loss_curves import LossCurves
from cloud.training.candidates.candidate_evaluation import check_unseen, evaluate_candidates
from cloud.training.distributed import Team
from cloud.training.groups.sightings import Sightings
from cloud.training.packaging import Trained, VersionPlan, write_version

__all__ = ["Trained", "train"]


def train(
    examples: Sequence[Example],
    gold: Sequence[Example],
    audit: Sequence[Example] = (),
    *,
    backbone: str,
    cache_dir: Path,
    also: Sequence[str] = (),
    registry: Registry,
    version: int,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    champion: Champion | None = None,
    dataset_version: int | None = None,
    tflite: bool = False,
    left_out: dict[str, int] | None = None,
    unseen: Collection[str] = (),
    labels: Collection[str] = (),
    progress: Progress | None = None,
    team: Team | None = None,
    sightings: Sightings | None = None,
    embed: Callable[[str], object] | None = None,
) -> Trained:
    """Train a version, measure it on the gold set, compare it with the champion and write it to disk.

    Up to three candidates are trained (`CANDIDATES`); the one with the lowest loss on held-out human labels
    is exported. Gold photos choose nothing, they only measure. The result
    depends on photos, labels and seed alone, not on photo ids or order.

    Args:
        examples: photos to train on; each class needs a human label.
        gold: photos to measure on; may be empty. None of them may be among the examples.
        audit: the fresh audit slice, for the promotion gate; none of them may be among the examples.
        backbone: name of the backbone.
        cache_dir: where embeddings are cached between trainings.
        also: names of further backbones, each of which is tried where it may pay (`is_worth_trying`); the one
            with the lowest loss on held-out labels is exported.
        registry: where the version is written; the losses on its cards decide whether the lane auto helps.
        version: number of the new version, at least 1.
        classes: in the order of the outputs; by default the labels, sorted.
        seed: of every random decision.
        champion: version that this one should replace; without it the card has no verdict.
        dataset_version: version of the dataset table that the examples come from, for the card.
        tflite: write the LiteRT variants too, those that pass the variant gate.
        left_out: number of rows that are not among the examples, by reason, for the card.
        unseen: ids of examples that the champion was not trained on; without a gold set, the answers of the
            cross-validation to them judge the version.
        labels: that people gave to photos of the dataset: the version is not promoted if it lacks one of
            them that the champion knows.
        progress: receives every step of more than two seconds.
        team: the workers of a distributed training, the first of them this one; by default it is alone.
        sightings: embeddings of photos without labels, by group of devices.
        embed: called with the name of each further backbone before photos are embedded by it.

    Raises:
        TrainingError: the examples do not allow a training.
        BackboneUnavailableError: the backbone's weights are not available.
        ExportError: the exported model does not answer as the trained one does.
        PermanentError: the version exists already, or no backbone has that name.
        TransientError: another worker of the team ended.
    """
    began = time.monotonic()
    progress = progress or NoProgress()
    registry.check_new(version)  # before the work: minutes of training would be lost
    check_unseen("audit", audit, examples)
    with LossCurves(registry.events_dir(version)) as curves:
        results = evaluate_candidates(
            examples,
            gold,
            backbone=backbone,
            cache_dir=cache_dir,
            also=also,
            classes=classes,
            seed=seed,
            progress=progress,
            team=team,
            curves=curves,
            sightings=sightings,
            embed=embed,
        )
    plan = VersionPlan(
        registry,
        version,
        champion=champion,
        audit=audit,
        unseen=unseen,
        labels=labels,
        dataset_version=dataset_version,
        tflite=tflite,
        left_out=left_out,
        seed=seed,
        began=began,
        losses=curves.losses,
    )
    return write_version(results, plan, progress)
