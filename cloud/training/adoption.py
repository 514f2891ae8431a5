"""Adopt a model that was made elsewhere: calibrate it, judge it, and add it to the registry as a version.

Nothing is trained. Labelled photos of the dataset fit the temperature and the novelty score, the gold set and
the promotion gate judge the model like any version.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from msgspec import Meta, Struct

from cloud.dataset.example import TrainingError, count_reasons, sorted_by_content
from cloud.dataset.store import Store
from cloud.modeling.load_tensorflow import load_tensorflow
from cloud.progress import NoProgress, Progress
from cloud.registry.registry import Registry
from cloud.reporting.mlflow_run import record_version
from cloud.training.photos import Photos, read_photos, usable_photos
from cloud.training.pipeline import TrainingRun, choose_version, tag_dataset
from schemas.field_types import ModelVersion

if TYPE_CHECKING:
    from cloud.modeling.adopted import ForeignModel
    from cloud.training.candidates.candidate_results import CandidateResults
    from cloud.training.photo_check import PhotoChecker

ADOPTED = "adopted"
"""Name of the only candidate of an adopted version."""
_SAMPLE_PHOTOS = 8


class AdoptionOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of one adoption.

    Attributes:
        model: folder of a SavedModel, or a `.keras`, `.tflite` or `.onnx` file.
        classes: in the order of the model's scores; at least two.
        dataset: folder or URL of the Lance table; None to adopt without photos, so without calibration.
        models: the models folder.
        cache: folder where embeddings are cached.
        preprocessing: as `parse_preprocessing` reads it; None if the model needs none.
        output: name of the output with the scores; None if only one can have them.
        scores: what they are; None to infer it from their values.
        version: number of the new version; None for the next one.
        dataset_version: version of the dataset to judge on; None for the newest.
        tflite: write the LiteRT variants too, where the model can be converted.
        seed: of every random decision.
    """

    model: str
    classes: tuple[str, ...]
    dataset: str | None
    models: str
    cache: str
    preprocessing: str | None = None
    output: str | None = None
    scores: Literal["logits", "probabilities"] | None = None
    version: ModelVersion | None = None
    dataset_version: Annotated[int, Meta(ge=1)] | None = None
    tflite: bool = True
    seed: Annotated[int, Meta(ge=0)] = 0


def run_adoption(options: AdoptionOptions, progress: Progress | None = None) -> TrainingRun:
    """Load a model, calibrate and judge it, and write it as a version with card and bundle.

    Blocks for seconds to minutes; may be killed at any moment, which leaves no version.

    Args:
        options: What to adopt, and where to.
        progress: Receives every step of more than two seconds.

    Raises:
        AdoptionError: The model cannot be used.
        TrainingError: The dataset has no photo to calibrate on.
        PermanentError: The dataset does not exist, or the version does.
        TransientError: The dataset cannot be read now.
    """
    began, registry = time.monotonic(), Registry(options.models)
    _check_classes(options.classes)
    store = None if options.dataset is None else Store.open(options.dataset, create=False)
    dataset_version = None if store is None else options.dataset_version or store.version
    version = choose_version(registry, store, options.version, dataset_version)
    progress = progress or NoProgress()
    progress.start("load the model", 1)
    # As in `pipeline`: only after the checks that do without it.
    load_tensorflow()
    from cloud.export.saved_model import warmup_photos  # noqa: PLC0415
    from cloud.modeling.adopted import (  # noqa: PLC0415
        ModelSource,
        answer_warnings,
        load_model,
        parse_preprocessing,
    )
    from cloud.training.distributed import alone  # noqa: PLC0415
    from cloud.training.packaging import VersionPlan, write_version  # noqa: PLC0415
    from cloud.training.photo_check import PhotoChecker  # noqa: PLC0415

    named = None if options.preprocessing is None else parse_preprocessing(options.preprocessing)
    source = ModelSource(
        Path(options.model),
        options.classes,
        warmup_photos(_SAMPLE_PHOTOS),
        named,
        options.output,
        options.scores,
    )
    model = load_model(source)
    warnings = answer_warnings(model, source)
    progress.advance()
    photos, checker = Photos.none(registry.champion()), PhotoChecker(model.backbone, Path(options.cache))
    if store is not None:
        photos = read_photos(store, registry, options.dataset_version, alone())
        photos = usable_photos(photos, checker, options.classes, progress)
        _check_photos(photos, options)
    plan = VersionPlan(
        registry,
        version,
        champion=photos.champion,
        audit=photos.audit,
        unseen=photos.unseen,
        labels=photos.labels,
        dataset_version=photos.dataset_version or None,
        tflite=options.tflite,
        left_out=count_reasons(photos.left_out),
        seed=options.seed,
        began=began,
    )
    results = _with_groups(_results(model, photos, options, progress), checker, options.seed, progress)
    trained = write_version(results, plan, progress)
    if store is not None:
        warnings += tag_dataset(store, version, photos.dataset_version)
    record_version(registry, version)
    return TrainingRun(trained, {}, photos.left_out, warnings)


def _results(
    model: "ForeignModel", photos: Photos, options: AdoptionOptions, progress: Progress
) -> "CandidateResults":
    """Answer all photos, and describe the model as the only candidate of a training."""
    from cloud.dataset.example import label_indices  # noqa: PLC0415
    from cloud.training.candidates.candidate_results import CandidateResults  # noqa: PLC0415
    from cloud.training.candidates.candidates import HeldOut  # noqa: PLC0415
    from cloud.training.candidates.learners import Fitted  # noqa: PLC0415
    from cloud.training.embeddings import embeddings  # noqa: PLC0415

    examples, gold = sorted_by_content(photos.labelled), sorted_by_content(photos.gold)
    features = np.zeros((0, model.backbone.embedding_dim), np.float32)
    if together := [*examples, *gold]:
        features = embeddings(together, model.backbone, model.network, Path(options.cache), progress)
    logits = model.head.logits(features)
    human = np.flatnonzero([photo.human for photo in examples])
    labels = label_indices([examples[position] for position in human], options.classes)
    return CandidateResults(
        classes=options.classes,
        examples=examples,
        gold=gold,
        fitted={ADOPTED: Fitted(model.network, model.head, human)},
        held_out={ADOPTED: HeldOut(logits[human], labels, human)},
        on_gold={ADOPTED: logits[len(examples) :]} if gold else {},
        chosen=ADOPTED,
        training_embeddings=features[: len(examples)],
        backbone=model.backbone,
    )


def _with_groups(
    results: "CandidateResults", checker: "PhotoChecker", seed: int, progress: Progress
) -> "CandidateResults":
    """Choose heads of groups of devices in addition to the model's own."""
    from cloud.training.groups.heads import with_answer_heads  # noqa: PLC0415

    if not any(photo.group for photo in results.examples):
        return results
    return with_answer_heads(results, duplicates=checker.groups(results.examples, progress), seed=seed)


def _check_classes(classes: tuple[str, ...]) -> None:
    if len(set(classes)) != len(classes) or len(classes) < 2:  # noqa: PLR2004 - a classifier needs two
        raise TrainingError(
            "classes",
            expected="at least two distinct names",
            got=list(classes),
            hint="name all classes of the model, in the order of its scores",
        )


def _check_photos(photos: Photos, options: AdoptionOptions) -> None:
    if not any(photo.human for photo in photos.labelled):
        raise TrainingError(
            f"cannot calibrate: {options.dataset} has no photo that a person labelled as one of "
            f"{', '.join(options.classes)}",
            hint="import some with 'gleaner cloud import DIR', or adopt the model with --uncalibrated",
        )
