"""What a training and a teacher embed, on a Ray cluster ahead of them: they find it in their cache."""

import os
from collections.abc import Iterable
from pathlib import Path

from cloud.dataset.store import HAS_IMAGE
from cloud.dataset.training_set import HAS_LABEL
from cloud.modeling.load_tensorflow import load_tensorflow
from cloud.progress import Progress
from cloud.ray_jobs.cluster import embed_on_ray
from cloud.training.pipeline import TrainingOptions
from schemas.errors import PermanentError


def check_alone(address: str | None) -> None:
    """Refuse a Ray cluster in a training by several workers.

    Raises:
        PermanentError: TF_CONFIG names others.
    """
    if address and "TF_CONFIG" in os.environ:
        raise PermanentError(
            "--ray: the workers that TF_CONFIG names share the embedding already",
            hint="leave one of the two out",
        )


def embed_for_training(options: TrainingOptions, backbone: str, progress: Progress) -> bool:
    """Embed the photos of a training by a backbone; return False if it is trained from scratch.

    Raises:
        BackboneUnavailableError: There is no such backbone.
        PermanentError, TransientError: As `cloud.ray_jobs.cluster.embed_on_ray`.
    """
    assert options.ray is not None, "the caller asks only then"
    load_tensorflow()
    from cloud.modeling.backbones import get_backbone  # noqa: PLC0415  # uses TensorFlow
    from cloud.ray_jobs.task import Work  # noqa: PLC0415  # as above

    if not get_backbone(backbone).pretrained:
        return False
    work = Work(options.dataset, backbone, mirrored=False, dim=True)
    where, cache = f"{HAS_IMAGE} AND {HAS_LABEL}", Path(options.cache)
    embed_on_ray(work, options.ray, where, cache, progress, version=options.dataset_version)
    return True


def embed_for_teacher(
    dataset: str, backbones: Iterable[str], address: str, cache_dir: Path, progress: Progress
) -> None:
    """Embed the photos that a teacher learns from or labels.

    Raises:
        PermanentError, TransientError: As `cloud.ray_jobs.cluster.embed_on_ray`.
    """
    load_tensorflow()
    from cloud.labeling.auto_label import READ_BY_TEACHER  # noqa: PLC0415  # uses TensorFlow
    from cloud.ray_jobs.task import Work  # noqa: PLC0415  # as above

    for backbone in backbones:
        work = Work(dataset, backbone, mirrored=True, dim=False)
        embed_on_ray(work, address, READ_BY_TEACHER, cache_dir, progress)
