"""Train one version from examples: candidates, calibration, metrics, gate, export, card and bundle."""

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from cloud.dataset.example import Example, TrainingError, class_names, label_indices, sorted_by_content
from cloud.evaluation.metrics import Metrics, calibration_errors, measure
from cloud.export.saved_model import Model, export_saved_model, pack, signature_of
from cloud.modeling.arrays import Floats, Ints, softmax
from cloud.modeling.backbones import Backbone, get_backbone, weights_digest
from cloud.modeling.novelty import fit_novelty
from cloud.progress import NoProgress, Progress
from cloud.registry.champion import evaluate_challenger, gold_digest
from cloud.registry.model_card import Calibration, Candidate, Card, code_commit, library_versions
from cloud.registry.registry import Champion, Registry
from cloud.training.candidates import HeldOut, Labelled, auto_helps, choose, cross_validate, fit_candidates
from cloud.training.distributed import Team
from cloud.training.learners import Fitted, learner_for


@dataclass(frozen=True, slots=True)
class Trained:
    """A version on disk.

    Attributes:
        card: its card.
        directory: its SavedModel.
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
    registry: Registry,
    version: int,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    champion: Champion | None = None,
    dataset_version: int | None = None,
    tflite: bool = False,
    progress: Progress | None = None,
    team: Team | None = None,
) -> Trained:
    """Train a version, measure it on the gold set, compare it with the champion and write it to disk.

    Up to three candidates are trained (`CANDIDATES`); the one with the lowest loss on held-out human labels
    is exported. Gold photos choose nothing, they only measure. The same photos, labels and seed give the
    same model, whatever the photo ids and the order.

    Args:
        examples: photos to train on; each class needs a human label.
        gold: photos to measure on; may be empty. None of them may be among the examples.
        audit: the fresh audit slice, for the promotion gate; none of them may be among the examples.
        backbone: name of the backbone.
        cache_dir: where embeddings are cached between trainings.
        registry: where the version is written; the cards there tell whether the lane auto helps.
        version: number of the new version, at least 1.
        classes: in the order of the outputs; by default the labels, sorted.
        seed: of every random decision.
        champion: version that this one should replace; without one there is no verdict.
        dataset_version: version of the dataset table that the examples come from, for the card.
        tflite: write the network for LiteRT too.
        progress: receives every step of more than two seconds.
        team: the workers of a distributed training, of which this one writes; by default this one alone.

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
    model, results = _chosen_model(tried, get_backbone(backbone), seed), _results(tried)
    card = Card(
        version=version,
        parent=None if champion is None else champion.card.version,
        dataset_version=dataset_version,
        backbone=backbone,
        weights_digest=weights_digest(model.network),
        classes=list(tried.classes),
        signature=signature_of(model),
        temperature=model.temperature,
        examples=_count(examples),
        examples_used=_count([tried.examples[position] for position in tried.winner.positions]),
        metrics=results.metrics,
        gold_digest=gold_digest(gold) if gold else None,
        chosen=tried.chosen,
        candidates=results.candidates,
        seed=seed,
        commit=code_commit(),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        training_s=round(time.monotonic() - began, 3),
        libraries=library_versions(),
        calibration=results.calibration,
        auto=auto_helps(map(_losses, [*(card.candidates for card in registry.cards()), results.candidates])),
    )
    progress.start("export", 1)
    directory, bundle_path = registry.version_dir(version), registry.bundle_path(version)
    registry.folder.mkdir(parents=True, exist_ok=True)
    with export_saved_model(model, directory, tflite=tflite) as partial:
        if champion is not None:
            verdict = evaluate_challenger(
                champion, partial, gold, audit, backbone=backbone, classes=tried.classes, seed=seed
            )
            card = structs.replace(card, verdict=verdict)
        registry.write_card(card, partial)
        # The bundle comes before the directory has its final name: no version exists without its bundle.
        bundle = pack(partial, bundle_path)
        registry.sync_files(version, partial)
    registry.sync_names()
    progress.advance()
    return Trained(card, directory, bundle_path, bundle.sha256, bundle.size_bytes)


@dataclass(frozen=True, slots=True)
class Tried:
    """Outcome of the candidates, the same in all workers of a team.

    Attributes:
        classes: in the order of the outputs.
        examples: in an order that depends only on their content.
        gold: the same.
        fitted: candidates by name.
        held_out: by candidate, answers to human labels that it was not trained on.
        on_gold: by candidate, logits on the gold set, `[N, K]`; empty without gold photos.
        chosen: name of the best candidate.
        seen: embeddings of the photos that the best candidate was trained on, `[n, D]`.
    """

    classes: tuple[str, ...]
    examples: list[Example]
    gold: list[Example]
    fitted: dict[str, Fitted]
    held_out: dict[str, HeldOut]
    on_gold: dict[str, Floats]
    chosen: str
    seen: NDArray[np.float32]

    @property
    def winner(self) -> Fitted:
        """The best candidate."""
        return self.fitted[self.chosen]


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
    """Train the candidates and evaluate them on held-out labels and on the gold set.

    This is the only part that needs the whole team: the first worker calls `train`, each other one this
    function, with the same examples and arguments. `train` describes the arguments.
    """
    progress = progress or NoProgress()
    examples, gold = sorted_by_content(examples), sorted_by_content(gold)
    names = class_names(examples, classes)
    _check_gold(gold, names)
    _check_unseen("gold", gold, examples)
    learner = learner_for(
        get_backbone(backbone),
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
    gold_positions = len(examples) + np.arange(len(gold))
    on_gold = {name: learner.logits(fitted[name], gold_positions) for name in fitted} if gold else {}
    chosen = choose(fitted, held_out)
    seen = learner.embeddings(fitted[chosen], np.unique(fitted[chosen].positions))
    return Tried(names, examples, gold, fitted, held_out, on_gold, chosen, seen)


def _check_gold(gold: Sequence[Example], classes: Sequence[str]) -> None:
    """Refuse gold photos of other classes."""
    for photo in gold:
        if photo.label not in classes:
            raise TrainingError(
                f"gold photo {photo.photo_id} has label {photo.label!r}, which is none of {list(classes)}",
                hint="label photos of that class for training too, or name the classes with --classes",
            )


def _check_unseen(kind: str, photos: Sequence[Example], examples: Sequence[Example]) -> None:
    """Refuse photos for evaluation that the training would see."""
    seen = {example.image for example in examples}
    for photo in photos:
        if photo.image in seen:
            raise TrainingError(
                f"{kind} photo {photo.photo_id} is also a training example",
                hint="a photo is either trained on or evaluated on",
            )


def _chosen_model(tried: Tried, backbone: Backbone, seed: int) -> Model:
    """Return the best candidate as it is exported."""
    temperature = tried.held_out[tried.chosen].temperature
    novelty = fit_novelty(tried.seen, seed)
    return Model(backbone, tried.winner.network, tried.winner.head, temperature, tried.classes, novelty)


class _Results(NamedTuple):
    """What the card says about the candidates."""

    candidates: list[Candidate]
    metrics: Metrics | None
    calibration: Calibration


def _results(tried: Tried) -> _Results:
    """Measure all candidates on the gold set, and the calibration of the best."""
    held_out, truth = tried.held_out, label_indices(tried.gold, tried.classes)
    metrics = {
        name: measure(softmax(logits / held_out[name].temperature), truth, tried.classes)
        for name, logits in tried.on_gold.items()
    }
    candidates = [
        _describe(name, fitted, held_out[name], metrics.get(name)) for name, fitted in tried.fitted.items()
    ]
    calibration = _calibration(held_out[tried.chosen], tried.on_gold.get(tried.chosen), truth)
    return _Results(candidates, metrics.get(tried.chosen), calibration)


def _calibration(held_out: HeldOut, on_gold: Floats | None, truth: Ints) -> Calibration:
    """Measure the calibration error without and with the temperature."""
    temperature = held_out.temperature
    gold = (None, None) if on_gold is None else calibration_errors(on_gold, truth, temperature)
    return Calibration(*calibration_errors(held_out.logits, held_out.labels, temperature), *gold)


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
