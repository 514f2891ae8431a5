"""Find labels that are probably wrong among photos, whose embeddings are computed or read from the cache."""

from collections.abc import Sequence
from pathlib import Path

from cloud.dataset.example import Example
from cloud.labeling.embedder import Embedder
from cloud.labeling.label_judgement import LabelError, LabelledPhoto, judge_labels
from cloud.progress import Progress


def find_label_errors(
    examples: Sequence[Example], backbone: str, cache_dir: Path, *, seed: int, progress: Progress
) -> list[LabelError]:
    """Return the labels that are probably wrong, lowest self-confidence first.

    Each photo is judged by an ensemble that was fitted without it; the only photo of a class cannot be.

    Args:
        examples: all labelled photos; gold photos may be among them, because the ensembles are discarded.
        backbone: one with pretrained weights.
        cache_dir: caches embeddings between runs.
        seed: seeds the folds.
        progress: shows the embedding and the judging of photos.

    Raises:
        BackboneUnavailableError: the name is not a backbone, or its pretrained weights are not available.
        TrainingError: a photo cannot be decoded.
    """
    embedder = Embedder.open(backbone, cache_dir)
    examples = embedder.decodable(examples, progress)
    if not examples:
        return []
    photos = [LabelledPhoto(one.photo_id, one.label, one.source) for one in examples]
    groups = embedder.groups(examples, progress)
    return judge_labels(
        photos, embedder.embed(examples, progress), seed=seed, groups=groups, progress=progress
    )
