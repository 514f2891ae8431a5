"""TODO."""

from typing import Annotated

from msgspec import Meta, Struct

from bus.config import Broker, HealthAddress
from cloud.retraining.triggers import Triggers
from schemas.messages import Name


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
    cache: Annotated[str, Meta(min_length=1, description="folder of features, kept between rounds")] = (
        ".cache/features"
    )
    backbone: Annotated[str, Meta(description="what is trained")] = "efficientnet-lite0"
    tflite: Annotated[bool, Meta(description="write the network of each version for LiteRT too")] = False
    teachers: Annotated[
        tuple[str, ...],
        Meta(description="the teacher's networks; with none, nobody teaches before a training"),
    ] = ("efficientnet-lite0",)
    release: Annotated[
        tuple[str, ...] | None,
        Meta(
            description="options of `gleaner cloud rollout` for what the gate lets pass; the first version, "
            "which has no stages, gets those that `release` has too. The policies of its nodes are tuned "
            "too. Absent: neither"
        ),
    ] = None
    every_s: Annotated[float, Meta(gt=0, le=86_400, description="between two looks, in seconds")] = 30.0
    round_s: Annotated[
        float, Meta(gt=0, description="a step of a round that takes longer is ended; a rollout has no limit")
    ] = 14_400.0
    triggers: Triggers = Triggers()
    probes: HealthAddress | None = None
