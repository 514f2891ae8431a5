"""State of a rollout and the file that keeps it."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from bus.atomic_file import write_atomic
from bus.file_lock import LockHeldError, exclusive_lock
from schemas.errors import PermanentError, TransientError
from schemas.messages import Count, Name, Probability, Release, Seconds, Stage, Tried

Facts = dict[str, str | int | float | bool]

_LOCK = ".rollout.lock"


class Rules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a stage is over, and when a version goes back."""

    stage_s: Annotated[Seconds, Meta(description="each stage takes so long at least")] = 600.0
    watch_s: Annotated[Seconds, Meta(description="after the last it may still go back for so long")] = 3600.0
    patience_s: Annotated[Seconds, Meta(description="nodes that are away are waited for so long")] = 1800.0
    error_margin: Annotated[Probability, Meta(description="failed calls above the champion's share")] = 0.02
    p95_factor: Annotated[float, Meta(ge=1, description="of the champion's p95")] = 1.5
    p95_slack_ms: Annotated[float, Meta(ge=0, description="and so much above it")] = 20.0
    disagreement: Annotated[Probability, Meta(description="share of photos with another label")] = 0.2


class Step(Struct, frozen=True, forbid_unknown_fields=True):
    """A stage of a rollout, and the photos that it takes: compared as shadow, classified as canary."""

    stage: Stage
    share: Probability = 1.0
    photos: Count = 0

    def __str__(self) -> str:
        return f"canary for {self.share:.0%} of the devices" if self.stage == "canary" else self.stage


class Rollout(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rollout as it stands: all that the controller has to remember.

    Attributes:
        champion: what every node goes back to; the node in it means nothing.
        challenger: what goes out.
        groups: of nodes, one after the other.
        steps: of each group; the last is for all devices.
        rules: when to go on and when to go back.
        began_ms: when the first step began; 0 in a file that does not say so.
        since_ms: when the present step began.
        group: the present one.
        step: the present one.
        phase: whether it is over, and how.
        reason: why it went back.
        facts: the figures behind that.
        passed_over: nodes that cannot try it; they get it last of all.
        usual: by node, what the champion did in the latest stage that tried both there.
        over: all nodes were told how it ended.
    """

    champion: Release
    challenger: Release
    groups: list[list[Name]]
    steps: list[Step]
    rules: Rules
    since_ms: int
    began_ms: int = 0
    group: int = 0
    step: int = 0
    phase: Literal["running", "returned", "finished"] = "running"
    reason: str | None = None
    facts: Facts = {}
    passed_over: list[Name] = []
    usual: dict[Name, Tried] = {}
    over: bool = False

    @property
    def present(self) -> Step:
        """The step that its present group is at."""
        return self.steps[self.step]

    @property
    def is_watched(self) -> bool:
        """Whether all nodes were told to serve it, and it may still go back."""
        last = self.group + 1 == len(self.groups) and self.present.stage == "all"
        return last and self.phase == "running"

    @property
    def members(self) -> list[str]:
        """The nodes of the present group that take part."""
        return [node for node in self.groups[self.group] if node not in self.passed_over]

    @property
    def reached(self) -> list[str]:
        """All nodes that heard of it so far."""
        return [node for group in self.groups[: self.group + 1] for node in group]


@dataclass(frozen=True, slots=True)
class RolloutFile:
    """The file that keeps a rollout, so that an interrupted controller continues where it stopped.

    Attributes:
        path: `rollout-N.json` in the models folder, unless the caller chose another one.
    """

    path: Path

    def read(self) -> Rollout | None:
        """Return the rollout, None if there is no file.

        Raises:
            PermanentError: The file holds something else.
        """
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Rollout)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise PermanentError(
                f"cannot read rollout state {self.path}: {error}",
                hint="restore the file, or remove it to start that rollout again",
            ) from None

    def write(self, rollout: Rollout) -> None:
        """Replace the file; after a power cut it holds the old state or the new one."""
        write_atomic(self.path, msgspec.json.format(msgspec.json.encode(rollout), indent=2))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock of the folder for the length of a block.

        The lock is one per folder, not per version: two rollouts at once would undo each other's stages.

        Raises:
            TransientError: Another rollout is running; the sentence names it and its process.
        """
        with ExitStack() as stack:
            holder = f"{self.path.stem} (process {os.getpid()})"
            try:
                stack.enter_context(exclusive_lock(self.path.parent / _LOCK, holder=holder))
            except LockHeldError as error:
                raise TransientError(
                    f"cannot start {self.path.stem}: {error.holder or 'another rollout'} is running",
                    hint="try again when it has ended",
                ) from None
            yield
