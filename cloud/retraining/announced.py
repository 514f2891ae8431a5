"""The announcements of drift and of wanted labels: on disk, so that a restart does not repeat them."""

from dataclasses import dataclass, field

import msgspec

from bus.files.atomic_file import write_atomic
from cloud.dataset.store import Store
from cloud.registry.model_card import Card
from cloud.registry.registry import Registry, newest_promoted
from cloud.retraining.drift_alarm import Tested, find_alarm
from cloud.retraining.signals import trained_dataset_version
from cloud.retraining.triggers import DriftAlarm, Triggers
from schemas.errors import DECODE_ERRORS


class Announced(msgspec.Struct, frozen=True):
    """The alarms that were published since the last training.

    Attributes:
        version: the newest version then; an alarm after the next training is a new one.
        scopes: `NODE/DEVICE`, or `the fleet`.
        raised: whether the audit share was raised.
        asked: the newest version when labels were asked for; -1 before.
    """

    version: int
    scopes: frozenset[str]
    raised: bool
    asked: int = -1

    def includes(self, alarm: DriftAlarm, version: int) -> bool:
        """Return whether the alarm was published."""
        return self.version == version and self.scopes.issuperset(alarm.scopes)

    def after(self, alarm: DriftAlarm, version: int, *, raised: bool) -> "Announced":
        """Return what is announced once the alarm is."""
        before = self.scopes if self.version == version else frozenset()
        scopes = before | frozenset(alarm.scopes)
        return msgspec.structs.replace(self, version=version, scopes=scopes, raised=raised)


NOTHING = Announced(0, frozenset(), raised=False)


def read_announced(registry: Registry) -> Announced:
    """Read what was announced; nothing if the file is missing or damaged, which announces an alarm again."""
    try:
        return msgspec.json.decode(registry.drift_file.read_bytes(), type=Announced)
    except (FileNotFoundError, *DECODE_ERRORS):
        return NOTHING


def write_announced(registry: Registry, announced: Announced) -> None:
    """Keep what was announced."""
    write_atomic(registry.drift_file, msgspec.json.encode(announced))


@dataclass(slots=True)
class DriftWatch:
    """Tests for drift once per block of new samples; in between it repeats its last result.

    Attributes:
        store: the dataset.
        triggers: size of a block, and the level.
    """

    store: Store
    triggers: Triggers
    _seen: tuple[int, int, int] | None = None
    _alarm: DriftAlarm | None = None
    _tested: Tested = field(default_factory=dict)

    def look(self, cards: list[Card]) -> DriftAlarm | None:
        """Return the alarm about the newest block of samples, None without one or without a version.

        Raises:
            TransientError: The dataset cannot be read now.
        """
        serving = newest_promoted(cards)
        if serving is None:
            return None
        blocks = self.store.count(f"model_version = {serving.version}") // self.triggers.drift_photos
        # A lane or a device may complete its block a little later than the fleet: it is tested with the next.
        seen = (cards[-1].version, serving.version, blocks)
        if seen != self._seen:
            trained_at = trained_dataset_version(self.store, cards[-1])
            self._alarm = find_alarm(self.store, serving.version, trained_at, self.triggers, self._tested)
            self._seen = seen
        return self._alarm
