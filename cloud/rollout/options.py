"""Options of a rollout, from its command or from the configuration of the retraining loop."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from bus.config import ConfigError
from cloud.registry.registry import Bundle
from cloud.registry.rollout_state import Rollout, Rules, Step
from cloud.rollout.releases import release_of
from schemas.contract.published import readable
from schemas.errors import PermanentError
from schemas.field_types import Count, ModelName, Name, Probability, Seconds

Url = Annotated[str, Meta(min_length=1, max_length=2048)]
CanaryShare = Annotated[float, Meta(gt=0, le=1)]


class RolloutOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nodes and stages of a rollout, and the figures that roll it back."""

    groups: Annotated[
        tuple[tuple[Name, ...], ...],
        Meta(min_length=1, description="groups of edge nodes; each group follows the one before it"),
    ] = (("edge-1",),)
    model: Annotated[ModelName, Meta(description="name of the model on the model servers")] = "pets"
    url: Annotated[
        Url | None,
        Meta(
            description="where nodes fetch the bundle: file, http, https or s3, with `{version}` for its "
            "number; absent: its path"
        ),
    ] = None
    champion_url: Annotated[Url | None, Meta(description="the same for the champion's bundle")] = None
    shadow_photos: Annotated[
        Count, Meta(description="photos to compare in the shadow stage; 0 leaves the stage out")
    ] = 200
    canary_shares: Annotated[
        tuple[CanaryShare, ...], Meta(description="shares of the devices, one canary stage each")
    ] = (0.1, 0.5)
    canary_photos: Annotated[
        Count, Meta(description="photos that the challenger classifies in each canary stage")
    ] = 200
    stage_s: Annotated[Seconds, Meta(description="shortest duration of a stage, in seconds")] = 600.0
    bake_time_s: Annotated[
        Seconds, Meta(description="how long the version is watched after its last stage, in seconds")
    ] = 3600.0
    node_timeout_s: Annotated[
        Seconds, Meta(description="longest wait for nodes that are offline, in seconds")
    ] = 1800.0
    disagreement: Annotated[
        Probability, Meta(description="share of photos with another label above which it is rolled back")
    ] = 0.2
    signing_key: Annotated[
        str | None, Meta(description="PEM file of the key that signs releases; absent: they are unsigned")
    ] = None
    force: Annotated[bool, Meta(description="release a version that the gate did not promote too")] = False

    @property
    def nodes(self) -> list[str]:
        """All nodes of all groups."""
        return [node for group in self.groups for node in group]

    @property
    def steps(self) -> list[Step]:
        """The stages that each group goes through."""
        shadow = [Step(stage="shadow", photos=self.shadow_photos)] if self.shadow_photos else []
        canaries = [
            Step(stage="canary", share=share, photos=self.canary_photos) for share in self.canary_shares
        ]
        return [*shadow, *canaries, Step(stage="all")]


def new_rollout(options: RolloutOptions, challenger: Bundle, champion: Bundle, now_ms: int) -> Rollout:
    """Return the first state of a rollout.

    Args:
        options: Nodes, stages and rules.
        challenger: Bundle to roll out.
        champion: Bundle to roll back to.
        now_ms: The present, UTC.

    Raises:
        PermanentError: Challenger and champion are one version, or a node is in two groups.
        ConfigError: A value is out of its range, such as a URL that is too long for a message.
    """
    if champion.card.version == challenger.card.version:
        raise PermanentError(
            f"version {challenger.card.version} is challenger and champion", hint="name another champion"
        )
    if len(set(options.nodes)) < len(options.nodes):
        raise PermanentError("node groups", expected="each node in one group", got=options.groups)
    first = options.nodes[0]
    rollout = Rollout(
        champion=release_of(champion, first, options.model, options.champion_url),
        challenger=release_of(challenger, first, options.model, options.url),
        groups=[list(group) for group in options.groups],
        steps=options.steps,
        rules=Rules(
            stage_s=options.stage_s,
            bake_time_s=options.bake_time_s,
            node_timeout_s=options.node_timeout_s,
            disagreement=options.disagreement,
        ),
        since_ms=now_ms,
        began_ms=now_ms,
    )
    # Constructors do not validate: the round trip does, before a broken release could be signed.
    try:
        return msgspec.convert(msgspec.to_builtins(rollout), Rollout)
    except msgspec.ValidationError as error:
        raise ConfigError("rollout options", expected="valid values", got=readable(error)) from None
