"""State of a rollout and the file that keeps it."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

from bus.files.atomic_file import write_atomic
from bus.files.file_lock import LockHeldError, exclusive_lock
from schemas.errors import DECODE_ERRORS, PermanentError, TransientError
from schemas.field_types import Count, Name, Probability, Seconds, Stage
from schemas.messages import Release, VersionStats

Facts = dict[str, str | int | float | bool]
Action = Literal["pause", "resume", "roll-back", "promote"]

_LOCK = ".rollout.lock"


# Unknown fields are ignored: rollouts begun by earlier versions also kept `error_margin` and `p95_factor`.
class Rules(Struct, frozen=True, kw_only=True):
    """When a stage ends, and which figures roll a version back.

    Attributes:
        stage_s: Shortest duration of a stage.
        bake_time_s: How long a version is watched, and can be rolled back, after its last stage.
        node_timeout_s: How long a stage waits for nodes that are offline.
        p95_slack_ms: Allowed excess of the 95th percentile, besides the factor.
        disagreement: Allowed share of photos with another label than the champion's.
    """

    stage_s: Seconds = 600.0
    bake_time_s: Seconds = field(name="watch_s", default=3600.0)
    node_timeout_s: Seconds = field(name="patience_s", default=1800.0)
    p95_slack_ms: Annotated[float, Meta(ge=0)] = 20.0
    disagreement: Probability = 0.2


class Step(Struct, frozen=True, forbid_unknown_fields=True):
    """A stage of a rollout.

    Attributes:
        stage: Shadow, canary or all.
        share: Share of the devices that a canary answers.
        photos: How many photos a shadow has to compare, or a canary to classify.
    """

    stage: Stage
    share: Probability = 1.0
    photos: Count = 0

    def __str__(self) -> str:
        return f"canary for {self.share:.0%} of the devices" if self.stage == "canary" else self.stage


class Order(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An operator's order that was carried out, for the audit trail.

    Attributes:
        order_id: its id, 32 hex digits.
        action: what was ordered.
        by: who gave it.
        at_ms: when it was given, by the clock of the machine that gave it.
        reason: why, in words.
    """

    order_id: str
    action: Action
    by: str
    at_ms: int
    reason: str | None = None


class Rollout(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """State of a rollout: everything that a restarted controller needs.

    Attributes:
        champion: release to roll back to; its node is not used.
        challenger: release that is rolled out.
        groups: of nodes, one after the other.
        steps: of each group; the last one has the stage `all`.
        rules: when a stage ends, and when the version is rolled back.
        began_ms: when the first step began; 0 in files of earlier versions.
        since_ms: when the current step began.
        group: index of the current group.
        step: index of the current step.
        phase: `returned` after a rollback, `finished` after the last step.
        reason: of the rollback.
        facts: figures of the rollback.
        skipped: nodes that cannot try the challenger; they get it when the rollout is finished.
        failed: those of the skipped nodes that alone found the challenger bad; they keep the champion.
        baseline: by node, the champion's figures in the newest stage that ran both versions there.
        announced: whether all nodes have been sent the outcome.
        paused: whether no further stage begins until an operator resumes.
        paused_at_ms: when that pause began; 0 in files of earlier versions.
        paused_ms: how long earlier pauses of the current step were.
        orders: the newest orders that were carried out, oldest first.
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
    # The file keeps its field names: a rollout may outlive an update of the controller.
    skipped: list[Name] = field(name="passed_over", default_factory=list)
    failed: list[Name] = []
    baseline: dict[Name, VersionStats] = field(name="usual", default_factory=dict)
    announced: bool = field(name="over", default=False)
    paused: bool = False
    paused_at_ms: int = 0
    paused_ms: int = 0
    orders: list[Order] = []

    @property
    def current_step(self) -> Step:
        """The step of the current group."""
        return self.steps[self.step]

    @property
    def is_baking(self) -> bool:
        """Whether all nodes were sent the version and it can still be rolled back."""
        last = self.group + 1 == len(self.groups) and self.current_step.stage == "all"
        return last and self.phase == "running"

    @property
    def active_nodes(self) -> list[str]:
        """Nodes of the current group, without the skipped ones."""
        return [node for node in self.groups[self.group] if node not in self.skipped]

    @property
    def voting_nodes(self) -> int:
        """Number of nodes that were given the challenger, also those that keep the champion since."""
        return sum(node not in self.skipped or node in self.failed for node in self.reached_nodes)

    @property
    def reached_nodes(self) -> list[str]:
        """Nodes of the current group and of those before it."""
        return [node for group in self.groups[: self.group + 1] for node in group]


@dataclass(frozen=True, slots=True)
class RolloutFile:
    """The file that keeps a rollout, so that an interrupted controller continues where it stopped.

    Attributes:
        path: `rollout-N.json` in the models folder.
    """

    path: Path

    def read(self) -> Rollout | None:
        """Return the rollout, None without a file.

        Raises:
            PermanentError: The file holds something else.
        """
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Rollout)
        except FileNotFoundError:
            return None
        except DECODE_ERRORS as error:
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
