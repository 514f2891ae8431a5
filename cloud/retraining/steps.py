"""The steps of a round: the options of each, and their order."""

from typing import TypeAlias

from msgspec import Struct

from bus.config import Broker
from bus.files.cache_folder import expanded
from cloud.registry.model_card import Card
from cloud.retraining.config import TrainerConfig
from cloud.rollout.options import RolloutOptions
from cloud.training.pipeline import TrainingOptions
from schemas.field_types import ModelVersion


class TeachStep(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="teach"):
    """Let a teacher label samples.

    Attributes:
        dataset: folder or URL of the Lance table.
        cache: folder of embeddings.
        backbones: of the teacher.
        ray: address of a Ray cluster that embeds the photos first; None for none.
    """

    dataset: str
    cache: str
    backbones: tuple[str, ...]
    ray: str | None = None


class ReleaseStep(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="release"):
    """Release a version; continues an interrupted rollout, and does nothing for one that has ended.

    Attributes:
        dataset: folder or URL of the Lance table, with the audits.
        models: the models folder.
        version: number of the version.
        options: nodes, stages and rules.
        broker: where the nodes are reached; the password is in the environment.
    """

    dataset: str
    models: str
    version: ModelVersion
    options: RolloutOptions
    broker: Broker


class TuneStep(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="tune"):
    """Tune the harvest policies of edge nodes.

    Attributes:
        dataset: folder or URL of the Lance table, with the audits.
        models: the models folder.
        nodes: names of the edge nodes.
        broker: where the nodes are reached; the password is in the environment.
        audit_share: if given, only raise the audit share to this.
    """

    dataset: str
    models: str
    nodes: tuple[str, ...]
    broker: Broker
    audit_share: float | None = None


# A tagged union: the worker decodes any of them from one JSON object.
Step: TypeAlias = TeachStep | TrainingOptions | ReleaseStep | TuneStep


def training_steps(config: TrainerConfig) -> list[TeachStep | TrainingOptions]:
    """Return the steps that end with a new version in the models folder."""
    cache = str(expanded(config.cache))
    train = TrainingOptions(
        dataset=config.dataset,
        models=config.models,
        cache=cache,
        backbone=config.backbone,
        also=config.also,
        classes=config.classes,
        tflite=config.tflite,
        ray=config.ray,
    )
    if not config.teachers:
        return [train]
    teach = TeachStep(dataset=config.dataset, cache=cache, backbones=config.teachers, ray=config.ray)
    return [teach, train]


def release_step(config: TrainerConfig, card: Card) -> ReleaseStep | None:
    """Return the step that releases a version, None without a [release] table."""
    if config.release is None:
        return None
    return ReleaseStep(
        dataset=config.dataset,
        models=config.models,
        version=card.version,
        options=config.release,
        broker=config.release_broker or config.broker,
    )


def tuning_step(config: TrainerConfig, *, audit_share: float | None = None) -> TuneStep | None:
    """Return the step that tunes the policies of the released nodes, None without a [release] table.

    Args:
        config: Names and places.
        audit_share: If given, the step only raises the audit share to this.
    """
    if config.release is None:
        return None
    nodes = tuple(dict.fromkeys(config.release.nodes))  # without repetitions, in order
    return TuneStep(
        dataset=config.dataset,
        models=config.models,
        nodes=nodes,
        broker=config.release_broker or config.broker,
        audit_share=audit_share,
    )
