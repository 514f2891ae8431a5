"""Variant evaluation: run each LiteRT variant of a version as it will be served, and ask the variant gate."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from msgspec import structs

from cloud.dataset.example import Example, sorted_by_content
from cloud.evaluation.metrics import measure
from cloud.evaluation.paired_comparison import PairedPredictions
from cloud.evaluation.variant_gate import VariantVerdict, judge_variant
from cloud.export.litert import VariantModel
from cloud.export.v1_loader import GraphAnswers
from cloud.registry.champion import Contestant, PairedModels
from schemas.errors import PermanentError
from schemas.groups.heads import read_heads
from schemas.litert import FLOAT32, Variant, read_manifest


def evaluate_variants(
    directory: Path,
    gold: Sequence[Example],
    audit: Sequence[Example] = (),
    *,
    classes: Sequence[str],
    seed: int = 0,
    answers: GraphAnswers | None = None,
) -> list[VariantVerdict]:
    """Run the graph of a version and each of its variants on the same photos, and decide about each variant.

    Args:
        directory: of the version.
        gold: photos with labels of the version's classes; may be empty.
        audit: the fresh audit slice, with weights.
        classes: in the order of the outputs.
        seed: of the bootstrap.
        answers: of the version's graph, if another gate asks it about the same photos.

    Returns:
        One verdict per variant; none if the version has no LiteRT part.
    """
    manifest = read_manifest(directory)
    if manifest is None or manifest.pixels is None:
        return []
    heads = read_heads(directory)
    form, photos = manifest.pixels, (sorted_by_content(gold), sorted_by_content(audit))
    with ExitStack() as opened:
        graph = answers or opened.enter_context(GraphAnswers(directory))
        by_graph = Contestant(graph, classes, heads)
        # Before the variants: a graph that cannot be run is no fault of a variant.
        graph.predict([photo.image for some in photos for photo in some])

        def compared(variant: Variant) -> list[PairedPredictions | None]:
            by_variant = Contestant(VariantModel(directory, variant, form), classes, heads)
            return [PairedModels(by_graph, by_variant).answer(some) for some in photos]

        return [_judge(variant, compared, classes, seed) for variant in manifest.variants]


def _judge(
    variant: Variant,
    compared: Callable[[Variant], list[PairedPredictions | None]],
    classes: Sequence[str],
    seed: int,
) -> VariantVerdict:
    try:
        on_gold, on_audit = compared(variant)
    except (PermanentError, RuntimeError, ValueError) as error:
        # It would fail at the edge too; the graph still serves there.
        return VariantVerdict(variant.name, served=False, reasons=[f"it cannot be run: {error}"])
    verdict = judge_variant(variant.name, on_gold, on_audit, exact=variant.name == FLOAT32, seed=seed)
    if on_gold is None:
        return verdict
    return structs.replace(verdict, metrics=measure(on_gold.challenger, on_gold.truth, classes))
