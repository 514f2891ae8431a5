"""The training pipeline: from the dataset to a version in the registry.

`run_training` is called by `gleaner cloud train` and by the retraining loop (`cloud/retraining/worker.py`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypedDict

from msgspec import Meta, Struct

from cloud.dataset.example import Example, classes_below_minimum
from cloud.dataset.store import Store
from cloud.dataset.training_set import examples
from cloud.evaluation.audit_set import audit_slice, hold_out_audit
from cloud.progress import NoProgress, Progress
from cloud.registry.registry import Champion, Registry
from schemas.messages import ModelVersion

if TYPE_CHECKING:
    from cloud.training.distributed import Team
    from cloud.training.train import Trained


class TrainingOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="train"):
    """Options of one training.

    Attributes:
        dataset: folder or URL of the Lance table.
        models: the models folder.
        cache: folder where embeddings are cached between trainings.
        backbone: name of the backbone.
        version: number of the new version; None for the next one.
        dataset_version: version of the dataset to train from; None for the newest.
        classes: in the order of the outputs; None for all labels, sorted, without those that have too few.
        tflite: write the network for LiteRT too.
        seed: of every random decision.
    """

    dataset: str
    models: str
    cache: str
    backbone: str = "efficientnet-lite0"
    version: ModelVersion | None = None
    dataset_version: Annotated[int, Meta(ge=1)] | None = None
    classes: tuple[str, ...] | None = None
    tflite: bool = False
    seed: Annotated[int, Meta(ge=0)] = 0


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """Outcome of one training.

    Attributes:
        trained: the new version; None in a worker that only helped the first one of its team.
        waiting: classes left out for lack of human labels, with the number that each has.
    """

    trained: "Trained | None"
    waiting: dict[str, int]


def run_training(options: TrainingOptions, progress: Progress | None = None) -> TrainingRun:
    """Train, evaluate and pack one version, and tag the dataset's version as `model-N`.

    Blocks for minutes; may be killed at any moment, which leaves no version. Where TF_CONFIG names several
    workers, each of them calls this function, and the first one writes the version.

    Args:
        options: What to train from, and where to.
        progress: Receives every step of more than two seconds.

    Raises:
        PermanentError: The dataset does not exist, the version does, or the examples allow no training.
        TransientError: The dataset cannot be read now, or another worker ended.
    """
    store, registry = Store.open(options.dataset, create=False), Registry(options.models)
    version = options.version or registry.next_version()
    registry.check_new(version)
    progress = progress or NoProgress()
    progress.start("load TensorFlow", 1)
    # It takes seconds and hundreds of megabytes: imported only after the checks that do without it.
    from cloud.modeling.backbones import get_backbone  # noqa: PLC0415
    from cloud.training.candidate_results import evaluate_candidates  # noqa: PLC0415
    from cloud.training.distributed import join  # noqa: PLC0415
    from cloud.training.train import train  # noqa: PLC0415

    progress.advance()
    get_backbone(options.backbone)  # an unknown name fails before the dataset is read
    team = join()
    photos = _read_photos(store, registry, options, team)
    terms: _Terms = {
        "backbone": options.backbone,
        "cache_dir": Path(options.cache),
        "classes": options.classes,
        "seed": options.seed,
        "progress": progress,
        "team": team,
    }
    if not team.chief:  # its results are used by the first worker, through the collectives
        evaluate_candidates(photos.labelled, photos.gold, **terms)
        return TrainingRun(None, photos.waiting)
    trained = train(
        photos.labelled,
        photos.gold,
        photos.audit,
        registry=registry,
        version=version,
        champion=photos.champion,
        dataset_version=photos.dataset_version,
        tflite=options.tflite,
        **terms,
    )
    # The tag keeps the rows that the version was trained from when the table is cleaned up.
    store.tag(f"model-{version}", photos.dataset_version)
    return TrainingRun(trained, photos.waiting)


class _Terms(TypedDict):
    """Arguments that all workers of a team share."""

    backbone: str
    cache_dir: Path
    classes: tuple[str, ...] | None
    seed: int
    progress: Progress
    team: "Team"


class _Photos(NamedTuple):
    """What a training reads from dataset and registry."""

    labelled: list[Example]
    gold: list[Example]
    audit: list[Example]
    waiting: dict[str, int]
    champion: Champion | None
    dataset_version: int


def _read_photos(store: Store, registry: Registry, options: TrainingOptions, team: "Team") -> _Photos:
    """Read the photos to train on and those to evaluate on; no photo is among both."""
    # Workers may see different newest versions and folders: all use those of the first one.
    dataset_version = team.agree(options.dataset_version or store.version)
    champion = registry.champion()
    # 0 for "no champion": workers exchange integers only.
    since_ms = team.agree(0 if champion is None else champion.card.created_at_ms)
    drawn = audit_slice(store, since_ms, version=dataset_version) if since_ms else []
    labelled, audit = hold_out_audit(examples(store, version=dataset_version), drawn)
    gold = examples(store, version=dataset_version, split="gold")
    waiting = {} if options.classes else classes_below_minimum(labelled, gold)
    # Gold photos of a class that the version does not know could only be wrong.
    labelled, gold = ([photo for photo in some if photo.label not in waiting] for some in (labelled, gold))
    return _Photos(labelled, gold, audit, waiting, champion, dataset_version)
