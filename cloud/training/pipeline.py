"""The training pipeline: from the dataset to a version in the registry.

`run_training` is called by `gleaner cloud train` and by the retraining loop (`cloud/retraining/worker.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

from msgspec import Meta, Struct

from cloud.dataset.example import (
    MIN_CLASSES,
    LeftOut,
    TrainingError,
    check_two_classes,
    count_reasons,
    gold_overlap,
)
from cloud.dataset.store import MODEL_TAG, Store
from cloud.dataset.training_set import human_classes
from cloud.modeling.backbone_names import check_backbone_name
from cloud.modeling.load_tensorflow import load_tensorflow
from cloud.progress import NoProgress, Progress
from cloud.registry.registry import Registry
from cloud.reporting.mlflow_run import record_version
from cloud.training.photos import read_photos, usable_photos
from schemas.errors import GleanerError, PermanentError
from schemas.field_types import ModelVersion

if TYPE_CHECKING:
    from cloud.training.distributed import Team
    from cloud.training.groups.sightings import Sightings
    from cloud.training.train import Trained


class TrainingOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="train"):
    """Options of one training.

    Attributes:
        dataset: folder or URL of the Lance table.
        models: the models folder.
        cache: folder where embeddings are cached between trainings.
        backbone: name of the backbone.
        also: names of backbones that are tried too, where labels allow it and `backbone` makes mistakes; the
            best on held-out labels becomes the version.
        version: number of the new version; None for the next one.
        dataset_version: version of the dataset to train from; None for the newest.
        classes: in the order of the outputs; None for all labels, sorted, without those that have too few.
        tflite: write the LiteRT variants too, for model servers without TensorFlow.
        seed: of every random decision.
        ray: address of a Ray cluster that embeds the photos first; None for none.
    """

    dataset: str
    models: str
    cache: str
    backbone: str = "efficientnet-lite0"
    also: tuple[str, ...] = ("efficientnet-lite0-grid", "compact")
    version: ModelVersion | None = None
    dataset_version: Annotated[int, Meta(ge=1)] | None = None
    classes: tuple[str, ...] | None = None
    tflite: bool = True
    seed: Annotated[int, Meta(ge=0)] = 0
    ray: Annotated[str, Meta(min_length=1)] | None = None


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """Outcome of one training.

    Attributes:
        trained: the new version; None in a worker that only helped the first one of its team.
        waiting: classes left out for lack of human labels, with the number that each has.
        left_out: rows that cannot be used, with the reason.
        warnings: what should be changed in the dataset, and what failed after the version was complete.
    """

    trained: "Trained | None"
    waiting: dict[str, int]
    left_out: list[LeftOut] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def run_training(
    options: TrainingOptions, progress: Progress | None = None, embed: Callable[[str], object] | None = None
) -> TrainingRun:
    """Train, evaluate and pack one version, and tag the dataset's version as `model-N`.

    Rows that cannot be used are left out and returned; none of them ends the training.

    Blocks for minutes; may be killed at any moment, which leaves no version. Where TF_CONFIG names several
    workers, each of them calls this function, and the first one writes the version.

    Args:
        options: What to train from, and where to.
        progress: Receives every step of more than two seconds.
        embed: Is called with the name of each backbone before photos are embedded by it; where `options.ray`
            is set, `cloud.ray_jobs.ahead.embed_for_training`.

    Raises:
        PermanentError: The dataset does not exist, the version does, no backbone has the name,
            or the examples allow no training.
        TransientError: The dataset cannot be read now, or another worker ended.
    """
    for name in (options.backbone, *options.also):
        check_backbone_name(name)
    store, registry = Store.open(options.dataset, create=False), Registry(options.models)
    dataset_version = options.dataset_version or store.version
    version = choose_version(registry, store, options.version, dataset_version)
    if options.classes is None:
        check_two_classes(human_classes(store, dataset_version))
    progress = progress or NoProgress()
    progress.start("load TensorFlow", 1)
    # Only after the checks that do without it.
    load_tensorflow()
    from cloud.modeling.backbones import get_backbone  # noqa: PLC0415
    from cloud.training.candidates.candidate_evaluation import evaluate_candidates  # noqa: PLC0415
    from cloud.training.distributed import join  # noqa: PLC0415
    from cloud.training.photo_check import PhotoChecker  # noqa: PLC0415
    from cloud.training.train import train  # noqa: PLC0415

    progress.advance()
    backbone = get_backbone(options.backbone)  # one that is not there fails before the dataset is read
    team = join()
    if embed is not None:
        embed(options.backbone)
    photos = read_photos(store, registry, options.dataset_version, team)
    photos = usable_photos(photos, PhotoChecker(backbone, Path(options.cache)), options.classes, progress)
    warning = gold_overlap(photos.labelled, photos.left_out)
    if warning and len({photo.label for photo in photos.labelled}) < MIN_CLASSES:
        raise TrainingError(warning)
    terms: _Terms = {
        "backbone": options.backbone,
        "also": options.also,
        "cache_dir": Path(options.cache),
        "classes": options.classes,
        "seed": options.seed,
        "progress": progress,
        "team": team,
        "sightings": photos.sightings,
        "embed": embed,
    }
    if not team.chief:  # its results are used by the first worker, through the collectives
        evaluate_candidates(photos.labelled, photos.gold, **terms)
        return TrainingRun(None, photos.waiting, photos.left_out)
    trained = train(
        photos.labelled,
        photos.gold,
        photos.audit,
        registry=registry,
        version=version,
        champion=photos.champion,
        dataset_version=photos.dataset_version,
        tflite=options.tflite,
        left_out=count_reasons(photos.left_out),
        unseen=photos.unseen,
        # Who names the classes leaves out the others on purpose.
        labels=() if options.classes else photos.labels,
        **terms,
    )
    warnings = [] if warning is None else [warning]
    warnings += tag_dataset(store, version, photos.dataset_version)
    record_version(registry, version)
    return TrainingRun(trained, photos.waiting, photos.left_out, warnings)


def choose_version(
    registry: Registry, store: Store | None, wanted: int | None, dataset_version: int | None
) -> int:
    """Return a number for a new version that is free in the models folder and among the dataset's tags.

    Another models folder may have tagged the same dataset. This is found out before minutes of training.

    Args:
        registry: The models folder.
        store: The dataset, None without one.
        wanted: The number that the caller wants; None for the next one.
        dataset_version: The version of the dataset that will be tagged.

    Raises:
        PermanentError: The wanted number cannot be used.
    """
    tags = {} if store is None else store.tags()
    version = wanted or registry.next_version()
    while (tagged := tags.get(_tag(version), dataset_version)) != dataset_version:
        if wanted is not None:
            raise PermanentError(
                f"version {version}: the dataset has the tag {_tag(version)!r} for its version {tagged}, "
                "from another models folder or a version that was removed",
                hint="choose another number, or none to take the next free one",
            )
        version += 1
    registry.check_new(version)
    return version


def tag_dataset(store: Store, version: int, dataset_version: int) -> list[str]:
    """Tag the rows that a version was trained from, so that they stay when the table is cleaned up.

    Returns:
        A warning if that failed: the version is complete without the tag.
    """
    try:
        store.tag(_tag(version), dataset_version)
    except (GleanerError, OSError) as error:
        return [
            f"version {version} is complete, but version {dataset_version} of the dataset has no tag: {error}"
        ]
    return []


def _tag(version: int) -> str:
    return f"{MODEL_TAG}{version}"


class _Terms(TypedDict):
    """Arguments that all workers of a team share."""

    backbone: str
    also: tuple[str, ...]
    cache_dir: Path
    classes: tuple[str, ...] | None
    seed: int
    progress: Progress
    team: "Team"
    sightings: "Sightings | None"
    embed: Callable[[str], object] | None
