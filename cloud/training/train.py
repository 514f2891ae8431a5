"""Train a model from labelled photos: examples to embeddings to head to a SavedModel with its card."""

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from cloud.dataset.example import Example, TrainingError, class_names, label_indices, sorted_by_content
from cloud.evaluation.metrics import Metrics, calibrated, measure
from cloud.export.saved_model import ExportError, Model, export_saved_model, pack, signature_of
from cloud.modeling.arrays import Floats, Ints, softmax
from cloud.modeling.backbones import backbone_named, weights_digest
from cloud.modeling.novelty import fit_novelty
from cloud.progress import NoProgress, Progress
from cloud.registry.champion import challenge, gold_digest
from cloud.registry.model_card import Calibration, Candidate, Card, code_commit, library_versions, write_card
from cloud.registry.registry import Champion, card_path, cards_in
from cloud.training.candidates import HeldOut, Labelled, auto_helps, choose, cross_validate, fit_candidates
from cloud.training.distributed import Team
from cloud.training.learners import Fitted, learner_for


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
    audit: Sequence[Example] = (),
    *,
    backbone: str,
    cache_dir: Path,
    out_dir: Path,
    version: int,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    champion: Champion | None = None,
    dataset_version: int | None = None,
    tflite: bool = False,
    progress: Progress | None = None,
    team: Team | None = None,
) -> Trained:
    """Train a version, measure it on the gold set, hold it against the champion and write it to disk.

    Three candidates are trained: on human labels alone, with the teacher's labels added, and with the photos
    of the lane auto too; held-out human labels choose between them. Gold photos choose nothing, they are only
    measured. The same photos and labels, whatever their ids and order, give the same model.

    Args:
        examples: what to train from; each class needs a human label.
        gold: what to measure on; may be empty. None of its photos may be among the examples.
        audit: the fresh audit slice, for the verdict; none of its photos may be among the examples.
        backbone: name of the backbone.
        cache_dir: keeps embeddings from training to training.
        out_dir: gets the directory `<version>` and the bundle `<version>.tar`. The cards of earlier versions
            there tell whether the lane auto helps.
        version: number of the new model, at least 1.
        classes: in the order of the outputs; by default the labels, sorted.
        seed: of every random decision.
        champion: version that this one is meant to replace; without one there is no verdict.
        dataset_version: where the examples come from, for the card.
        tflite: write the network for LiteRT too.
        progress: told about every step of more than two seconds.
        team: this worker and those that `try_candidates` with it; nobody by default.

    Raises:
        TrainingError: the examples do not allow it.
        ValueError: no backbone has that name.
        BackboneUnavailableError: its weights cannot be had.
        ExportError: the version exists already, or cannot be served as it was trained.
        TransientError: another worker ended.
    """
    began = time.monotonic()
    progress = progress or NoProgress()
    _check_place(out_dir, version)
    _check_unseen("audit", audit, examples)
    tried = try_candidates(
        examples,
        gold,
        backbone=backbone,
        cache_dir=cache_dir,
        classes=classes,
        seed=seed,
        progress=progress,
        team=team,
    )
    plan, names, fitted, held_out = backbone_named(backbone), tried.classes, tried.fitted, tried.held_out
    chosen, logits, truth = tried.chosen, tried.on_gold, label_indices(tried.gold, tried.classes)
    metrics = {
        name: measure(softmax(said / held_out[name].temperature), truth, names)
        for name, said in logits.items()
    }
    winner = fitted[chosen]
    novelty = fit_novelty(tried.seen, seed)
    model = Model(plan, winner.network, winner.head, held_out[chosen].temperature, names, novelty)
    candidates = [_describe(name, fitted[name], held_out[name], metrics.get(name)) for name in fitted]
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
        examples_used=_count([tried.examples[position] for position in winner.positions]),
        metrics=metrics.get(chosen),
        gold_digest=gold_digest(gold) if gold else None,
        chosen=chosen,
        candidates=candidates,
        seed=seed,
        commit=code_commit(),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        training_s=round(time.monotonic() - began, 3),
        libraries=library_versions(),
        calibration=_calibration(held_out[chosen], logits.get(chosen), truth),
        auto=auto_helps(map(_losses, [*(card.candidates for card in cards_in(out_dir)), candidates])),
    )
    progress.start("export", 1)
    out_dir.mkdir(parents=True, exist_ok=True)
    directory, bundle_path = out_dir / str(version), out_dir / f"{version}.tar"
    with export_saved_model(model, directory, tflite=tflite) as partial:
        if champion is not None:
            verdict = challenge(champion, partial, gold, audit, backbone=backbone, classes=names, seed=seed)
            card = structs.replace(card, verdict=verdict)
        write_card(card, card_path(partial))
        # Before the folder has its name: no version is without its bundle.
        bundle = pack(partial, bundle_path)
    progress.advance()
    return Trained(card, directory, bundle_path, bundle.sha256, bundle.size_bytes)


@dataclass(frozen=True, slots=True)
class Tried:
    """What all workers know.

    Attributes:
        classes: in the order of the outputs.
        examples: in an order of their own.
        gold: the same.
        fitted: candidates by name.
        held_out: their answers to labels that they had not seen.
        on_gold: their logits on the gold set, `[N, K]`; empty without gold photos.
        chosen: name of the best.
        seen: embeddings of the photos that this one was trained on, `[n, D]`.
    """

    classes: tuple[str, ...]
    examples: list[Example]
    gold: list[Example]
    fitted: dict[str, Fitted]
    held_out: dict[str, HeldOut]
    on_gold: dict[str, Floats]
    chosen: str
    seen: NDArray[np.float32]


def try_candidates(
    examples: Sequence[Example],
    gold: Sequence[Example],
    *,
    backbone: str,
    cache_dir: Path,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    team: Team | None = None,
) -> Tried:
    """Train the candidates and let them answer what they have not seen.

    It is all that takes a team: its first worker calls `train`, each other this, with the same examples and
    arguments, which `train` describes.
    """
    progress = progress or NoProgress()
    examples, gold = sorted_by_content(examples), sorted_by_content(gold)
    names = class_names(examples, classes)
    _check_gold(gold, names)
    _check_unseen("gold", gold, examples)
    learner = learner_for(
        backbone_named(backbone),
        [*examples, *gold],
        len(names),
        trainable=len(examples),
        cache_dir=cache_dir,
        seed=seed,
        progress=progress,
        team=team,
    )
    labelled = Labelled.of(examples, names)
    held_out = cross_validate(learner, labelled, seed=seed, progress=progress)
    fitted = fit_candidates(learner, labelled, np.flatnonzero(labelled.human))
    judged_on = len(examples) + np.arange(len(gold))
    on_gold = {name: learner.logits(fitted[name], judged_on) for name in fitted} if gold else {}
    chosen = choose(fitted, held_out)
    seen = learner.embeddings(fitted[chosen], np.unique(fitted[chosen].positions))
    return Tried(names, examples, gold, fitted, held_out, on_gold, chosen, seen)


def _check_place(out_dir: Path, version: int) -> None:
    """Refuse before the work what could not be written after it."""
    if version < 1:
        raise ExportError(f"version: expected a number of at least 1, got {version}")
    if out_dir.exists() and not out_dir.is_dir():
        raise ExportError(f"{out_dir}: expected a folder, got a file")
    if (out_dir / str(version)).exists():
        raise ExportError(f"{out_dir / str(version)}: expected a new version, got one that exists")


def _check_gold(gold: Sequence[Example], classes: Sequence[str]) -> None:
    """Refuse gold photos of other classes."""
    for photo in gold:
        if photo.label not in classes:
            raise TrainingError(
                f"gold photo {photo.photo_id}: expected a label of {list(classes)}, got {photo.label!r}"
            )


def _check_unseen(kind: str, judges: Sequence[Example], examples: Sequence[Example]) -> None:
    """Refuse photos to judge on that the training would see."""
    seen = {example.image for example in examples}
    for photo in judges:
        if photo.image in seen:
            raise TrainingError(
                f"{kind} photo {photo.photo_id}: expected one that is not trained on, got one of the examples"
            )


def _calibration(held_out: HeldOut, on_gold: Floats | None, truth: Ints) -> Calibration:
    """Measure the calibration without and with the temperature."""
    temperature = held_out.temperature
    gold = (None, None) if on_gold is None else calibrated(on_gold, truth, temperature)
    return Calibration(*calibrated(held_out.logits, held_out.labels, temperature), *gold)


def _losses(candidates: Sequence[Candidate]) -> dict[str, float | None]:
    return {candidate.name: candidate.held_out_loss for candidate in candidates}


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
