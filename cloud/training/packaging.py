"""Package a trained or adopted model as a version: card, gates, export, report and bundle."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from msgspec import structs

from bus.files.atomic_file import write_atomic
from cloud.dataset.example import Example, label_indices, sorted_by_content
from cloud.evaluation.metrics import Metrics, calibration_errors, measure
from cloud.evaluation.promotion_gate import Verdict
from cloud.evaluation.variant_gate import VariantVerdict
from cloud.export.saved_model import export_saved_model, pack, signature_of
from cloud.export.serving_module import Model
from cloud.export.v1_loader import GraphAnswers
from cloud.export.variants import (
    CALIBRATION_PHOTOS,
    INT8_FILES,
    RANGE_PHOTOS,
    Quantization,
    remove_variants,
)
from cloud.modeling.arrays import Floats, Ints, softmax
from cloud.modeling.backbones import weights_digest
from cloud.modeling.novelty import NoveltyModel, fit_novelty
from cloud.modeling.offset_head import log_probabilities
from cloud.progress import NoProgress, Progress
from cloud.registry.champion import HeldOutAnswers, evaluate_challenger, gold_digest
from cloud.registry.model_card import (
    Calibration,
    Candidate,
    Card,
    GroupOutcome,
    code_commit,
    library_versions,
)
from cloud.registry.registry import Champion, Registry
from cloud.registry.variant_evaluation import evaluate_variants
from cloud.reporting.training_report import Answers, ReportData, render_report
from cloud.training.candidates.candidate_results import CandidateResults
from cloud.training.candidates.candidates import HeldOut, auto_helps
from cloud.training.candidates.learners import Fitted
from schemas.groups.heads import HEADS_FILE, GroupHeads, encode_heads, group_heads
from schemas.litert import EXTRA_ASSETS
from schemas.pixels import DECODING


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


@dataclass(frozen=True, slots=True)
class VersionPlan:
    """Where a version is written, what evaluates it, and what its card records about the training.

    Attributes:
        registry: where the version is written; the losses on its cards decide whether the lane auto helps.
        version: number of the new version, at least 1.
        champion: version that this one should replace; without it the card has no verdict.
        audit: the fresh audit slice, for the promotion gate.
        unseen: ids of examples that the champion was not trained on; without a gold set, the answers of the
            cross-validation to them judge the version.
        labels: that people gave to photos of the dataset, also of classes that are not trained on.
        dataset_version: version of the dataset table that the examples come from.
        tflite: write the LiteRT variants too, those that pass the variant gate.
        left_out: number of rows that are not among the examples, by reason.
        seed: of every random decision.
        began: monotonic time at which the work began, in seconds.
        losses: `(step, loss)` by training from scratch, for the report.
    """

    registry: Registry
    version: int
    champion: Champion | None = None
    audit: Sequence[Example] = ()
    unseen: Collection[str] = ()
    labels: Collection[str] = ()
    dataset_version: int | None = None
    tflite: bool = False
    left_out: dict[str, int] | None = None
    seed: int = 0
    began: float = 0.0
    losses: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)


def write_version(results: CandidateResults, plan: VersionPlan, progress: Progress | None = None) -> Trained:
    """Export the chosen candidate, judge it and add it to the registry.

    Args:
        results: the candidates, with the gold set and the examples that they are measured on.
        plan: where it is written, and what it is compared with.
        progress: receives every step of more than two seconds.

    Raises:
        ExportError: the exported model does not answer as the trained one does.
        PermanentError: the version exists already.
    """
    progress = progress or NoProgress()
    model, figures = _chosen_model(results), _card_figures(results)
    earlier = [card.candidates for card in plan.registry.cards()]
    champion, gold = plan.champion, results.gold
    card = Card(
        version=plan.version,
        parent=None if champion is None else champion.card.version,
        dataset_version=plan.dataset_version,
        backbone=results.backbone.name,
        weights_digest=weights_digest(model.network),
        classes=list(results.classes),
        signature=signature_of(model),
        temperature=model.temperature,
        examples=_count(results.examples),
        examples_used=_count([results.examples[position] for position in results.chosen_fit.positions]),
        metrics=figures.metrics,
        gold_digest=gold_digest(gold) if gold else None,
        chosen=results.chosen,
        candidates=figures.candidates,
        seed=plan.seed,
        commit=code_commit(),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        training_s=round(time.monotonic() - plan.began, 3),
        libraries=library_versions(),
        calibration=figures.calibration,
        decoding=DECODING,
        auto=auto_helps(map(_losses, [*earlier, figures.candidates])),
        left_out=plan.left_out or {},
        whitened=results.whitened,
        groups=_group_outcomes(results),
        others={other.backbone.name: _card_figures(other).candidates for other in results.others},
    )

    def judge(directory: Path, answers: GraphAnswers) -> Verdict | None:
        if champion is None:
            return None
        return evaluate_challenger(
            champion,
            directory,
            gold,
            plan.audit,
            held_out=_held_out_answers(results, plan.unseen),
            labels=plan.labels,
            backbone=results.backbone.name,
            classes=results.classes,
            seed=plan.seed,
            answers=answers,
        )

    def judge_variants(directory: Path, answers: GraphAnswers) -> list[VariantVerdict]:
        return evaluate_variants(
            directory, gold, plan.audit, classes=results.classes, seed=plan.seed, answers=answers
        )

    progress.start("export", 1)
    trained = _write_files(
        plan.registry,
        model,
        card,
        judge,
        judge_variants,
        tflite=plan.tflite,
        quantization=Quantization(_calibration_photos(results), quantized_before(champion, card)),
        evidence=_evidence(results, plan.losses),
        heads=heads_of(results),
    )
    progress.advance()
    return trained


def _held_out_answers(results: CandidateResults, unseen: Collection[str]) -> HeldOutAnswers:
    """Return the chosen candidate's cross-validated answers to photos that the champion has not seen."""
    held_out = results.chosen_held_out
    photos = [results.examples[position] for position in held_out.positions]
    rows = [row for row, photo in enumerate(photos) if photo.photo_id in unseen]
    return HeldOutAnswers([photos[row] for row in rows], results.held_out_answers[rows])


def heads_of(results: CandidateResults) -> GroupHeads | None:
    """Return the heads of groups as the bundle has them; None without any."""
    heads = results.groups.heads
    return group_heads(results.classes, results.backbone.embedding_dim, heads) if heads else None


def _group_outcomes(results: CandidateResults) -> list[GroupOutcome]:
    """Return the card's entry for each group of devices."""
    return [
        GroupOutcome(
            name=fit.name,
            labels=fit.labels,
            served=fit.head is not None,
            source=fit.source,
            reason=fit.reason,
            loss=fit.loss,
            group_loss=fit.group_loss,
            accuracy=fit.accuracy,
            group_accuracy=fit.group_accuracy,
            gold_photos=0 if fit.gold is None else fit.gold.photos,
            gold_accuracy=None if fit.gold is None else fit.gold.champion,
            group_gold_accuracy=None if fit.gold is None else fit.gold.challenger,
        )
        for fit in results.groups.fits
    ]


def _write_files(
    registry: Registry,
    model: Model,
    card: Card,
    judge: Callable[[Path, GraphAnswers], Verdict | None],
    judge_variants: Callable[[Path, GraphAnswers], list[VariantVerdict]],
    *,
    tflite: bool,
    quantization: Quantization,
    evidence: ReportData,
    heads: GroupHeads | None = None,
) -> Trained:
    """Export a model, judge what was exported, and add it to the registry with its card and bundle."""
    directory, bundle_path = registry.version_dir(card.version), registry.bundle_path(card.version)
    registry.folder.mkdir(parents=True, exist_ok=True)
    with export_saved_model(model, directory, tflite=tflite, quantization=quantization) as unfinished:
        if heads is not None:
            write_atomic(unfinished / HEADS_FILE, encode_heads(heads))
        # The gates run what was exported, as edges will serve it; both ask the graph about the same photos.
        with GraphAnswers(unfinished) as answers:
            verdict, variants = judge(unfinished, answers), judge_variants(unfinished, answers)
        card = structs.replace(card, verdict=verdict, variants=variants)
        remove_variants(unfinished, [verdict.name for verdict in card.variants if not verdict.served])
        registry.write_card(card, unfinished)
        # The bundle comes before the directory has its final name: no version exists without its bundle.
        bundle = pack(unfinished, bundle_path)
        # After the bundle, which goes to edges: the report has gold photos in it, the mistakes name them.
        registry.write_report(render_report(card, evidence), unfinished)
        if (found := evidence.mistakes(card)) is not None:
            registry.write_gold_mistakes(found, unfinished)
        # Files before names: after a power cut, a directory with its final name has all of its content.
        registry.sync_files(unfinished)
    registry.sync_names()
    return Trained(card, directory, bundle_path, bundle.sha256, bundle.size_bytes)


def _chosen_model(results: CandidateResults) -> Model:
    """Return the best candidate as it is exported."""
    temperature = results.chosen_held_out.temperature
    backbone, embedded = results.backbone, results.training_embeddings
    novelty = fit_novelty(embedded) if len(embedded) else NoveltyModel.unknown(backbone.embedding_dim)
    return Model(
        backbone, results.chosen_fit.network, results.chosen_fit.head, temperature, results.classes, novelty
    )


def _calibration_photos(results: CandidateResults) -> list[bytes]:
    """Return photos that the best candidate was trained on, also harvested ones, in an order by content.

    It is as good as random, and further photos change little of it.
    """
    photos = sorted_by_content(results.examples[at] for at in np.unique(results.chosen_fit.positions))
    return [photo.image for photo in photos[:CALIBRATION_PHOTOS]]


def quantized_before(champion: Champion | None, card: Card) -> bytes | None:
    """Return the champion's network in 8-bit integers, if that is of the same network and well measured.

    Measured again on other photos it would be another file, as good and of 4 MB (docs/decisions/0078).
    """
    if champion is None:
        return None
    before = champion.card
    if (before.backbone, before.weights_digest, before.decoding) != (
        card.backbone,
        card.weights_digest,
        card.decoding,
    ):
        return None
    photos = sum(sum(sources.values()) for sources in before.examples_used.values())
    if photos < RANGE_PHOTOS:
        return None
    try:
        return (champion.directory / EXTRA_ASSETS / INT8_FILES[0]).read_bytes()
    except OSError:  # it had no form in 8-bit integers, or was refused
        return None


def _evidence(results: CandidateResults, losses: Mapping[str, Sequence[tuple[int, float]]]) -> ReportData:
    """Return the calibrated answers of the best candidate, for the report."""
    held_out, gold = results.chosen_held_out, results.gold_answers
    return ReportData(
        gold=None
        if gold is None
        else Answers(gold, label_indices(results.gold, results.classes), results.gold),
        held_out=Answers(results.held_out_answers, held_out.labels) if len(held_out.labels) else None,
        losses=losses,
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
    on_gold, answers = results.on_gold.get(results.chosen), results.gold_by_groups
    if answers is None:
        measured = metrics.get(results.chosen)
    else:  # what edges serve; the candidates are compared by their shared heads
        measured = measure(answers, truth, results.classes)
        # Logits before the temperature, up to a constant per photo, which the softmax ignores.
        on_gold = log_probabilities(answers) * results.chosen_held_out.temperature
    calibration = _calibration(results.chosen_held_out, on_gold, truth)
    return _CardFigures(candidates, measured, calibration)


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
