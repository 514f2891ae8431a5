"""Train a model from labelled photos: examples to embeddings to head to a SavedModel with its card."""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from msgspec import structs

from cloud.backbones import backbone_named, weights_digest
from cloud.candidates import HeldOut, Labelled, choose, cross_validate, fit_candidates, label_numbers
from cloud.card import FILE_NAME, Candidate, Card, code_commit, library_versions, write_card
from cloud.challenge import Champion, challenge, gold_digest
from cloud.evaluate import Metrics, measure
from cloud.examples import Example, TrainingError, class_names
from cloud.export import EXTRA, ExportError, Model, exported, pack, signature_of
from cloud.head import softmax
from cloud.learners import Fitted, Learner, learner_for
from cloud.novelty import fit_novelty
from cloud.progress import Progress, Silent


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
    backbone: str,
    cache_dir: Path,
    out_dir: Path,
    version: int,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    champion: Champion | None = None,
    dataset_version: int | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train a version, measure it on the gold set, hold it against the champion and write it to disk.

    Two candidates are trained, one on human labels alone and one that adds the harvested photos
    whose label the first candidate confirms; held-out human labels choose between them. Gold photos
    choose nothing, they are only measured.

    Args:
        examples: what to train from; each class needs a human label.
        gold: what to measure on; may be empty. None of its photos may be among the examples.
        backbone: name of the backbone.
        cache_dir: keeps embeddings from training to training.
        out_dir: gets the directory `<version>` and the bundle `<version>.tar`.
        version: number of the new model, at least 1.
        classes: in the order of the outputs; by default the labels, sorted.
        seed: of every random decision.
        champion: version that this one is meant to replace; without one, or without gold photos, there is
            no verdict.
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
    _check_gold(examples, gold, names)
    plan = backbone_named(backbone)
    learner = learner_for(
        plan, [*examples, *gold], len(names), cache_dir=cache_dir, seed=seed, progress=progress
    )
    labelled = Labelled.of(examples, names)
    held_out = cross_validate(learner, labelled, seed=seed, progress=progress)
    fitted = fit_candidates(learner, labelled, np.flatnonzero(labelled.human))
    chosen = choose(fitted, held_out)
    metrics = _measure_gold(learner, fitted, held_out, gold, names)
    winner = fitted[chosen]
    seen = fit_novelty(learner.embeddings(winner, np.unique(winner.positions)), seed)
    model = Model(plan, winner.network, winner.head, held_out[chosen].temperature, names, seen)
    card = Card(
        version=version,
        parent=None if champion is None else champion.card.version,
        dataset_version=dataset_version,
        backbone=backbone,
        weights_digest=weights_digest(model.network),
        classes=list(names),
        signature=signature_of(model),
        temperature=model.temperature,
        examples=_count(examples),
        examples_used=_count([examples[position] for position in winner.positions]),
        metrics=metrics[chosen],
        gold_digest=gold_digest(gold) if gold else None,
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
    directory, bundle_path = out_dir / str(version), out_dir / f"{version}.tar"
    with exported(model, directory) as partial:
        if champion is not None and gold:
            verdict = challenge(champion, partial, gold, backbone=backbone, classes=names, seed=seed)
            card = structs.replace(card, verdict=verdict)
        write_card(card, partial / EXTRA / FILE_NAME)
    bundle = pack(directory, bundle_path)
    progress.advance()
    return Trained(card, directory, bundle_path, bundle.sha256, bundle.size_bytes)


def _check_place(out_dir: Path, version: int) -> None:
    """Refuse before the work what could not be written after it."""
    if version < 1:
        raise ExportError(f"version: expected a number of at least 1, got {version}")
    if (out_dir / str(version)).exists():
        raise ExportError(f"{out_dir / str(version)}: expected a new version, got one that exists")


def _check_gold(examples: Sequence[Example], gold: Sequence[Example], classes: Sequence[str]) -> None:
    """Refuse gold photos of other classes, and those that the training would have seen."""
    seen = {example.image for example in examples}
    for photo in gold:
        if photo.label not in classes:
            raise TrainingError(
                f"gold photo {photo.photo_id}: expected a label of {list(classes)}, got {photo.label!r}"
            )
        if photo.image in seen:
            raise TrainingError(
                f"gold photo {photo.photo_id}: expected one that is not trained on, got one of the examples"
            )


def _measure_gold(
    learner: Learner,
    fitted: Mapping[str, Fitted],
    held_out: Mapping[str, HeldOut],
    gold: Sequence[Example],
    classes: Sequence[str],
) -> dict[str, Metrics | None]:
    """Measure each candidate on the gold photos, which are the last in the learner's list."""
    if not gold:
        return dict.fromkeys(fitted)
    truth = label_numbers(gold, classes)
    positions = np.arange(learner.photo_count - len(gold), learner.photo_count)
    return {
        name: measure(
            softmax(learner.logits(candidate, positions) / held_out[name].temperature), truth, classes
        )
        for name, candidate in fitted.items()
    }


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
