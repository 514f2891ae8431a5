"""Train a model from labelled photos: examples to embeddings to head to a SavedModel with its card."""

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from msgspec import structs

from cloud.backbones import backbone_named, weights_digest
from cloud.candidates import HeldOut, Labelled, choose, cross_validate, fit_candidates, label_numbers
from cloud.card import Calibration, Candidate, Card, card_path, code_commit, library_versions, write_card
from cloud.evaluate import Metrics, calibration_error, measure
from cloud.examples import Example, TrainingError, class_names
from cloud.export import ExportError, Model, export, pack, signature_of
from cloud.head import Floats, Ints, softmax
from cloud.learners import Fitted, learner_for
from cloud.progress import Progress, Silent
from cloud.trial import Lineage, hold


@dataclass(frozen=True, slots=True)
class Trained:
    """A model on disk.

    Attributes:
        card: what it is.
        directory: the SavedModel, named by the version's number.
        bundle_path: the same, packed.
        sha256: of the bundle.
        size_bytes: of the bundle.
    """

    card: Card
    directory: Path
    bundle_path: Path
    sha256: str
    size_bytes: int


def train(
    examples: Sequence[Example],
    gold: Sequence[Example],
    *,
    audit: Sequence[Example] = (),
    against: Lineage | None = None,
    backbone: str,
    cache_dir: Path,
    out_dir: Path,
    version: int,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    dataset_version: int | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train a version, measure it on the gold set, judge it against the champion and write it to disk.

    Three candidates are trained: on human labels alone, with the teacher's labels added, and with the photos
    of the lane auto whose label the first candidate confirms; held-out human labels choose between them. Gold
    photos choose nothing, they are only measured.

    Args:
        examples: what to train from; each class needs a human label.
        gold: what to measure on; may be empty. None of its photos may be among the examples.
        audit: the fresh audit slice, for the verdict; none of its photos may be among the examples.
        against: the versions in `out_dir` to be judged against; by default none.
        backbone: name of the backbone.
        cache_dir: keeps embeddings from training to training.
        out_dir: gets the directory `<version>` and the bundle `<version>.tar`.
        version: number of the new model, at least 1.
        classes: in the order of the outputs; by default the labels, sorted.
        seed: of every random decision.
        dataset_version: where the examples come from, for the card.
        progress: told about every step of more than two seconds.

    Raises:
        TrainingError: the examples do not allow it.
        ValueError: no backbone has that name.
        BackboneUnavailableError: its weights cannot be had.
        ExportError: the version exists already, or cannot be served as it was trained.
    """
    began = time.monotonic()
    progress = progress or Silent()
    _check_place(out_dir, version)
    names = class_names(examples, classes)
    _check_unseen(examples, gold, names)
    _check_unseen(examples, audit)
    against = against or Lineage()
    plan = backbone_named(backbone)
    learner = learner_for(
        plan,
        [*examples, *gold],
        len(names),
        trainable=len(examples),
        cache_dir=cache_dir,
        seed=seed,
        progress=progress,
    )
    labelled = Labelled.of(examples, names)
    held_out = cross_validate(learner, labelled, seed=seed, progress=progress)
    fitted = fit_candidates(learner, labelled, np.flatnonzero(labelled.human))
    chosen = choose(fitted, held_out)
    positions = np.arange(learner.photo_count - len(gold), learner.photo_count)
    truth = label_numbers(gold, names)
    nothing = np.zeros((0, len(names)))
    on_gold = {name: learner.logits(fitted[name], positions) if gold else nothing for name in fitted}
    metrics = {
        name: measure(softmax(logits / held_out[name].temperature), truth, names) if gold else None
        for name, logits in on_gold.items()
    }
    winner = fitted[chosen]
    model = Model(plan, winner.network, winner.head, held_out[chosen].temperature, names)
    card = Card(
        version=version,
        parent=against.champion,
        dataset_version=dataset_version,
        backbone=backbone,
        weights_digest=weights_digest(model.network),
        classes=list(names),
        signature=signature_of(model),
        temperature=model.temperature,
        examples=_count(examples),
        examples_used=_count([examples[position] for position in winner.positions]),
        calibration=_calibration(held_out[chosen], on_gold[chosen], truth),
        metrics=metrics[chosen],
        chosen=chosen,
        candidates=[_describe(name, fitted[name], held_out[name], metrics[name]) for name in fitted],
        seed=seed,
        commit=code_commit(),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        training_s=round(time.monotonic() - began, 3),
        libraries=library_versions(),
    )
    progress.start("export", 1)
    out_dir.mkdir(parents=True, exist_ok=True)
    directory = out_dir / str(version)
    export(model, card, directory)
    progress.advance()
    gate = hold(out_dir, version, against, gold, audit, seed=seed, progress=progress)
    card = structs.replace(card, gate=gate, training_s=round(time.monotonic() - began, 3))
    return _packed(card, directory)


def _check_place(out_dir: Path, version: int) -> None:
    """Refuse before the work what could not be written after it."""
    if version < 1:
        raise ExportError(f"version: expected a number of at least 1, got {version}")
    if (out_dir / str(version)).exists():
        raise ExportError(f"{out_dir / str(version)}: expected a new version, got one that exists")


def _check_unseen(
    examples: Sequence[Example], photos: Sequence[Example], classes: Sequence[str] | None = None
) -> None:
    """Refuse photos to measure on that the training would see, and gold photos of other classes."""
    seen = {example.image for example in examples}
    for photo in photos:
        kind = "audit" if classes is None else "gold"
        if classes is not None and photo.label not in classes:
            raise TrainingError(
                f"gold photo {photo.photo_id}: expected a label of {list(classes)}, got {photo.label!r}"
            )
        if photo.image in seen:
            raise TrainingError(
                f"{kind} photo {photo.photo_id}: expected one that is not trained on, got one of the examples"
            )


def _calibration(held_out: HeldOut, gold_logits: Floats, gold_truth: Ints) -> Calibration:
    """Measure the calibration without and with the temperature."""

    def error(logits: Floats, truth: Ints, temperature: float) -> float | None:
        if len(truth) == 0:
            return None
        answers = softmax(logits / temperature)
        return calibration_error(answers.max(axis=1), answers.argmax(axis=1) == truth)

    return Calibration(
        held_out_before=error(held_out.logits, held_out.labels, 1.0),
        held_out_after=error(held_out.logits, held_out.labels, held_out.temperature),
        gold_before=error(gold_logits, gold_truth, 1.0),
        gold_after=error(gold_logits, gold_truth, held_out.temperature),
    )


def _count(examples: Sequence[Example]) -> dict[str, dict[str, int]]:
    """Count photos by class and source."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for example in examples:
        counts[example.label][example.source] += 1
    return {label: dict(sources) for label, sources in sorted(counts.items())}


def _describe(name: str, fitted: Fitted, held_out: HeldOut, metrics: Metrics | None) -> Candidate:
    return Candidate(
        name=name,
        photos=len(fitted.positions),
        held_out_photos=len(held_out.labels),
        held_out_loss=held_out.loss,
        held_out_accuracy=held_out.accuracy,
        gold_accuracy=metrics.accuracy if metrics else None,
    )


def _packed(card: Card, directory: Path) -> Trained:
    """Write the card with its verdict, and the bundle last: a version without one was never finished."""
    write_card(card, card_path(directory))
    bundle_path = directory.with_name(f"{directory.name}.tar")
    bundle = pack(directory, bundle_path)
    return Trained(card, directory, bundle_path, bundle.sha256, bundle.size_bytes)
