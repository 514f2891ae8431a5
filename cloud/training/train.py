"""Train one version from examples: candidates, calibration, metrics, gate, export, card and bundle."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from msgspec import structs

from cloud.dataset.example import Example, label_indices
from cloud.evaluation.metrics import Metrics, calibration_errors, measure
from cloud.evaluation.promotion_gate import Verdict
from cloud.export.saved_model import Model, export_saved_model, pack, signature_of
from cloud.modeling.arrays import Floats, Ints, softmax
from cloud.modeling.backbones import Backbone, get_backbone, weights_digest
from cloud.modeling.novelty import fit_novelty
from cloud.progress import NoProgress, Progress
from cloud.registry.champion import evaluate_challenger, gold_digest
from cloud.registry.model_card import Calibration, Candidate, Card, code_commit, library_versions
from cloud.registry.registry import Champion, Registry
from cloud.training.candidate_results import CandidateResults, check_unseen, evaluate_candidates
from cloud.training.candidates import HeldOut, auto_helps
from cloud.training.distributed import Team
from cloud.training.learners import Fitted


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
    is exported. Gold photos choose nothing, they only measure. The result
    depends on photos, labels and seed alone, not on photo ids or order.

    Args:
        examples: photos to train on; each class needs a human label.
        gold: photos to measure on; may be empty. None of them may be among the examples.
        audit: the fresh audit slice, for the promotion gate; none of them may be among the examples.
        backbone: name of the backbone.
        cache_dir: where embeddings are cached between trainings.
        registry: where the version is written; the losses on its cards decide whether the lane auto helps.
        version: number of the new version, at least 1.
        classes: in the order of the outputs; by default the labels, sorted.
        seed: of every random decision.
        champion: version that this one should replace; without it the card has no verdict.
        dataset_version: version of the dataset table that the examples come from, for the card.
        tflite: write the network for LiteRT too.
        progress: receives every step of more than two seconds.
        team: the workers of a distributed training, the first of them this one; by default it is alone.

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
    results = evaluate_candidates(
        examples,
        gold,
        backbone=backbone,
        cache_dir=cache_dir,
        classes=classes,
        seed=seed,
        progress=progress,
        team=team,
    )
    model, figures = _chosen_model(results, get_backbone(backbone), seed), _card_figures(results)
    earlier = [card.candidates for card in registry.cards()]
    card = Card(
        version=version,
        parent=None if champion is None else champion.card.version,
        dataset_version=dataset_version,
        backbone=backbone,
        weights_digest=weights_digest(model.network),
        classes=list(results.classes),
        signature=signature_of(model),
        temperature=model.temperature,
        examples=_count(examples),
        examples_used=_count([results.examples[position] for position in results.chosen_fit.positions]),
        metrics=figures.metrics,
        gold_digest=gold_digest(gold) if gold else None,
        chosen=results.chosen,
        candidates=figures.candidates,
        seed=seed,
        commit=code_commit(),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        training_s=round(time.monotonic() - began, 3),
        libraries=library_versions(),
        calibration=figures.calibration,
        auto=auto_helps(map(_losses, [*earlier, figures.candidates])),
    )

    def judge(directory: Path) -> Verdict | None:
        if champion is None:
            return None
        return evaluate_challenger(
            champion, directory, gold, audit, backbone=backbone, classes=results.classes, seed=seed
        )

    progress.start("export", 1)
    trained = _write_version(registry, model, card, judge, tflite=tflite)
    progress.advance()
    return trained


def _write_version(
    registry: Registry, model: Model, card: Card, judge: Callable[[Path], Verdict | None], *, tflite: bool
) -> Trained:
    """Export a model, judge what was exported, and add it to the registry with its card and bundle."""
    directory, bundle_path = registry.version_dir(card.version), registry.bundle_path(card.version)
    registry.folder.mkdir(parents=True, exist_ok=True)
    with export_saved_model(model, directory, tflite=tflite) as partial:
        # The gate compares the exported graph, which is what edges will serve.
        card = structs.replace(card, verdict=judge(partial))
        registry.write_card(card, partial)
        # The bundle comes before the directory has its final name: no version exists without its bundle.
        bundle = pack(partial, bundle_path)
        # Files before names: after a power cut, a directory with its final name has all of its content.
        registry.sync_files(partial)
    registry.sync_names()
    return Trained(card, directory, bundle_path, bundle.sha256, bundle.size_bytes)


def _chosen_model(results: CandidateResults, backbone: Backbone, seed: int) -> Model:
    """Return the best candidate as it is exported."""
    temperature = results.held_out[results.chosen].temperature
    novelty = fit_novelty(results.training_embeddings, seed)
    return Model(
        backbone, results.chosen_fit.network, results.chosen_fit.head, temperature, results.classes, novelty
    )


class _CardFigures(NamedTuple):
    """Figures of the candidates, for the card."""

    candidates: list[Candidate]
    metrics: Metrics | None
    calibration: Calibration


def _card_figures(results: CandidateResults) -> _CardFigures:
    """Measure all candidates on the gold set, and the calibration of the best."""
    held_out, truth = results.held_out, label_indices(results.gold, results.classes)
    metrics = {
        name: measure(softmax(logits / held_out[name].temperature), truth, results.classes)
        for name, logits in results.on_gold.items()
    }
    candidates = [
        _describe(name, fitted, held_out[name], metrics.get(name)) for name, fitted in results.fitted.items()
    ]
    calibration = _calibration(held_out[results.chosen], results.on_gold.get(results.chosen), truth)
    return _CardFigures(candidates, metrics.get(results.chosen), calibration)


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
