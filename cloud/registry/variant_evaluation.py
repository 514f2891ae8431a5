"""Variant evaluation: run each LiteRT variant of a version as it will be served, and ask the variant gate."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from cloud.dataset.example import Example, sorted_by_content
from cloud.evaluation.metrics import measure
from cloud.evaluation.paired_comparison import PairedPredictions
from cloud.evaluation.variant_gate import VariantVerdict, judge_variant
from cloud.export.litert import VariantModel
from cloud.export.v1_loader import SavedModel
from cloud.registry.champion import Contestant, PairedModels, Predictor
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
) -> list[VariantVerdict]:
    """Run the graph of a version and each of its variants on the same photos, and decide about each variant.

    Args:
        directory: of the version.
        gold: photos with labels of the version's classes; may be empty.
        audit: the fresh audit slice, with weights.
        classes: in the order of the outputs.
        seed: of the bootstrap.

    Returns:
        One verdict per variant; none if the version has no LiteRT part.
    """
    manifest = read_manifest(directory)
    if manifest is None or manifest.pixels is None:
        return []
    heads = read_heads(directory)
    form, photos = manifest.pixels, (sorted_by_content(gold), sorted_by_content(audit))
    with SavedModel(directory) as graph:
        served = [_AskedOnce(graph, [photo.image for photo in some]) for some in photos]

        def answers(variant: Variant) -> list[PairedPredictions | None]:
            model = VariantModel(directory, variant, form)
            return [
                PairedModels(Contestant(by_graph, classes, heads), Contestant(model, classes, heads)).answer(
                    some
                )
                for some, by_graph in zip(photos, served, strict=True)
            ]

        return [_judge(variant, answers, classes, seed) for variant in manifest.variants]


class _AskedOnce:
    """A model that has answered some photos, once for all variants."""

    def __init__(self, model: Predictor, photos: Sequence[bytes]) -> None:
        self._answers = model.predict(photos) if photos else {}

    def predict(self, photos: Sequence[bytes]) -> dict[str, NDArray[np.float32]]:
        """Return the answers to those photos."""
        assert all(len(values) == len(photos) for values in self._answers.values())
        return self._answers


def _judge(
    variant: Variant,
    answers: Callable[[Variant], list[PairedPredictions | None]],
    classes: Sequence[str],
    seed: int,
) -> VariantVerdict:
    try:
        on_gold, on_audit = answers(variant)
    except (PermanentError, RuntimeError, ValueError) as error:
        # It would fail at the edge too; the graph still serves there.
        return VariantVerdict(variant.name, served=False, reasons=[f"it cannot be run: {error}"])
    verdict = judge_variant(variant.name, on_gold, on_audit, exact=variant.name == FLOAT32, seed=seed)
    if on_gold is None:
        return verdict
    return structs.replace(verdict, metrics=measure(on_gold.challenger, on_gold.truth, classes))
