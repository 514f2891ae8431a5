"""Which version answers which device: immutable values, replaced as a whole by the deployer."""

from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Self

from schemas.field_types import Stage

_HASH_VALUES = 2**64


@dataclass(frozen=True, slots=True)
class CanaryPlan:
    """What a release of stage `shadow` or `canary` asks for.

    Args:
        stage: `shadow` or `canary`.
        share: Share of the devices that the challenger answers, 0 to 1; only for `canary`.
        champion: Version that serves all other devices.
        challenger: Version under evaluation.
        since_ms: Time of the release, by the cloud's clock; identifies this stage in reports.
    """

    stage: Stage
    share: float
    champion: int
    challenger: int
    since_ms: int

    def includes(self, device: str) -> bool:
        """Return True if the challenger answers this device.

        Deterministic per device and challenger. A larger share only adds devices.
        """
        # The challenger is part of the hash, so that the next rollout starts with other devices.
        digest = blake2b(f"{device} {self.challenger}".encode(), digest_size=8).digest()
        return self.stage == "canary" and int.from_bytes(digest) < self.share * _HASH_VALUES


@dataclass(frozen=True, slots=True)
class TrafficSplit:
    """The versions that answer photos now.

    Args:
        pinned: Version that answers; None for the newest one that the model server has.
        plan: The present shadow or canary stage, if any.
        ready: True if the challenger is loaded and smoke-tested; until then the champion answers everything.
    """

    pinned: int | None = None
    plan: CanaryPlan | None = None
    ready: bool = False

    @classmethod
    def preparing(cls, plan: CanaryPlan) -> Self:
        """Return the split while the challenger is loaded: the champion answers everything."""
        # Pinned, because the server's newest version is the challenger as soon as it is loaded.
        return cls(pinned=plan.champion, plan=plan)

    def follow(self, plan: CanaryPlan) -> Self:
        """Return this split with another plan for the same two versions."""
        return replace(self, plan=plan)

    def with_challenger(self, *, ready: bool) -> Self:
        """Return this split with the challenger taking part, or not."""
        return replace(self, ready=ready)

    def without_challenger(self) -> Self:
        """Return this split after its canary stage: the pinned version answers everything."""
        return replace(self, plan=None, ready=False)

    @property
    def challenger(self) -> int | None:
        """The version under evaluation, ready or not."""
        return None if self.plan is None else self.plan.challenger

    def challenger_for(self, device: str) -> int | None:
        """Return the challenger if it answers this device's photos, else None."""
        if self.plan is None or not self.ready:
            return None
        return self.plan.challenger if self.plan.includes(device) else None

    def counterpart(self, version: int) -> int | None:
        """Return the version to compare an answer of this version with; None without a ready challenger."""
        if self.plan is None or not self.ready:
            return None
        champion, challenger = self.plan.champion, self.plan.challenger
        return {champion: challenger, challenger: champion}.get(version)
