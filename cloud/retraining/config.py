"""Configuration of the retraining loop."""

from typing import Annotated

from msgspec import Meta, Struct

from bus.config import Broker, HealthAddress
from cloud.retraining.triggers import Triggers
from cloud.rollout.options import RolloutOptions
from schemas.field_types import Label as ClassName
from schemas.field_types import Name
from schemas.topics import check_component_name


class TrainerConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `gleaner cloud watch` and `gleaner cloud round` read from TOML."""

    name: Annotated[Name, Meta(description="trainer, or trainer-2 and so on where there are several")] = (
        "trainer"
    )
    broker: Broker = Broker()
    dataset: Annotated[str, Meta(min_length=1, description="folder or URL of the Lance table")] = (
        "dataset.lance"
    )
    models: Annotated[
        str, Meta(min_length=1, description="folder of the versions; one round at a time works in it")
    ] = "models"
    cache: Annotated[str, Meta(min_length=1, description="folder of embeddings, kept between rounds")] = (
        "~/.cache/gleaner/features"
    )
    backbone: Annotated[str, Meta(description="backbone of the versions")] = "efficientnet-lite0"
    also: Annotated[
        tuple[str, ...],
        Meta(
            description="backbones that are tried too where the first one makes mistakes on held-out labels;"
            " a pretrained one from 60 human labels on, one that is trained from scratch from 300 on"
        ),
    ] = ("efficientnet-lite0-grid", "compact")
    classes: Annotated[
        tuple[ClassName, ...] | None,
        Meta(description="classes of the versions; photos of others are left out. Absent: all labels"),
    ] = None
    tflite: Annotated[bool, Meta(description="write the LiteRT variants of each version too")] = True
    teachers: Annotated[
        tuple[str, ...], Meta(description="backbones of the teacher; empty: no teacher labels samples")
    ] = ("efficientnet-lite0",)
    ray: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="address of a Ray cluster that embeds the photos of a round first, HOST:PORT; its "
            "machines read the dataset under the same path or URL. Absent: this machine embeds them"
        ),
    ] = None
    release: Annotated[
        RolloutOptions | None,
        Meta(
            description="how promoted versions go out; the harvest policies of the same nodes are tuned."
            " Absent: neither"
        ),
    ] = None
    release_broker: Annotated[
        Broker | None,
        Meta(
            description="how releases and policies are published; absent: as by `broker`. With certificates"
            " that of `rollout.toml`, because the trainer's own may not publish them"
        ),
    ] = None
    every_s: Annotated[float, Meta(gt=0, le=86_400, description="pause between two looks, in seconds")] = 30.0
    step_timeout_s: Annotated[
        float,
        Meta(gt=0, description="limit for teaching, for training and for tuning; a rollout has no limit"),
    ] = 14_400.0
    triggers: Triggers = Triggers()
    probes: HealthAddress | None = None

    def __post_init__(self) -> None:
        """Refuse reserved names; raises TopicError."""
        check_component_name(self.name, "trainer")
