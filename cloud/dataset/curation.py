"""Correct and remove photos manually: select them, label them, rename a class, forget photos for good."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from bus.mqtt.presence import now_ms
from cloud.dataset.change_log import ChangeLog
from cloud.dataset.labels import Label
from cloud.dataset.rows.forgotten import forget, is_forgotten
from cloud.dataset.rows.row_changes import remember_import
from cloud.dataset.schema import Record
from cloud.dataset.store import HAS_IMAGE, Store
from schemas.class_names import class_name
from schemas.codec import content_id
from schemas.errors import PermanentError
from schemas.text import escaped

_LABEL_COLUMNS = ("human_label", "device_label", "teacher_label", "edge_label")
_MIN_PREFIX = 6
_HEX = re.compile(r"[0-9a-f]+")
_SHOWN = 5
_LABELLED, _GOLD = 1, 2


def quoted(text: str) -> str:
    """Return a text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which photos; all conditions must hold, and an empty selection is every photo.

    Attributes:
        photos: Ids, beginnings of ids of at least 6 digits, or names of imported files.
        node: Edge node.
        device: Device.
        label: Class that a person gave.
        split: Split.
        lane: Lane.
        origin: `sample` or `import`.
        labelled: Whether a person has labelled it; None for both.
        before_ms: Arrived in the cloud before this time, UTC.
        after_ms: Arrived at this time or later, UTC.
    """

    photos: Sequence[str] = ()
    node: str | None = None
    device: str | None = None
    label: str | None = None
    split: str | None = None
    lane: str | None = None
    origin: str | None = None
    labelled: bool | None = None
    before_ms: int | None = None
    after_ms: int | None = None

    @property
    def where(self) -> str:
        """The selection as a condition in SQL, without `photos`."""
        parts = [f"{column} = {quoted(value)}" for column, value in self._equal.items()]
        if self.labelled is not None:
            parts.append(f"human_label IS {'NOT ' if self.labelled else ''}NULL")
        if self.before_ms is not None:
            parts.append(f"received_at_ms < {self.before_ms}")
        if self.after_ms is not None:
            parts.append(f"received_at_ms >= {self.after_ms}")
        return " AND ".join([HAS_IMAGE, *parts])

    def fits(self, record: Record) -> bool:
        """Return whether a row of a photo meets `where`."""
        received_ms = record["received_at_ms"]
        return (
            all(record[column] == value for column, value in self._equal.items())
            and self.labelled in (None, record["human_label"] is not None)
            and (self.before_ms is None or received_ms < self.before_ms)
            and (self.after_ms is None or received_ms >= self.after_ms)
        )

    @property
    def _equal(self) -> dict[str, str]:
        equal = {
            "node": self.node,
            "device": self.device,
            "human_label": self.label,
            "split": self.split,
            "lane": self.lane,
            "origin": self.origin,
        }
        return {column: value for column, value in equal.items() if value is not None}

    def __str__(self) -> str:
        names = [name for name in self.__slots__ if getattr(self, name) not in (None, ())]
        return ", ".join(f"{name}={getattr(self, name)}" for name in names) or "all photos"


def find_photos(store: Store, selection: Selection) -> list[str]:
    """Return the ids of the selected photos, sorted.

    Raises:
        PermanentError: A named photo does not exist, or a beginning of an id or a file name fits several.
        TransientError: The dataset cannot be read now.
    """
    found = {str(row["photo_id"]) for row in store.scan(["photo_id"], where=selection.where)}
    if selection.photos:
        found &= {find_photo(store, name) for name in selection.photos}
    return sorted(found)


def find_late(store: Store, selection: Selection, before_ms: int) -> list[str]:
    """Return the ids of the selected photos taken before a time: some arrived only after it."""
    where = f"{selection.where} AND coalesce(taken_at_ms, 0) < {before_ms}"
    return [str(row["photo_id"]) for row in store.scan(["photo_id"], where=where)]


def find_photo(store: Store, name: str) -> str:
    """Return the id of a photo by its id, a beginning of it, or the name of its imported file.

    Raises:
        PermanentError: There is none, or there are several.
        TransientError: The dataset cannot be read now.
    """
    condition = f"source = {quoted(name)}"
    if len(name) >= _MIN_PREFIX and _HEX.fullmatch(name):
        condition = f"({condition} OR photo_id LIKE '{name}%')"
    rows = store.scan(["photo_id"], where=f"{HAS_IMAGE} AND {condition}", limit=_SHOWN)
    found = sorted(str(row["photo_id"]) for row in rows)
    if not found:
        raise PermanentError(
            f"photo {escaped(name)}: not in the dataset",
            hint="'gleaner cloud list' shows ids and file names",
        )
    if len(found) > 1:
        raise PermanentError(f"photo {escaped(name)}: fits several: {', '.join(found)}", hint="give the id")
    return found[0]


def set_label(store: Store, log: ChangeLog, given: Label, action: Literal["label", "relabel"]) -> str | None:
    """Give a photo the label of a person.

    Args:
        store: The dataset.
        log: Its change log.
        given: The label of a photo in the dataset, given now.
        action: `label` refuses a photo that has another label by a person.

    Returns:
        The label that a person gave before, None without one.

    Raises:
        PermanentError: The photo has another label already, or is not in the dataset.
        TransientError: The dataset cannot be written now.
    """
    found: list[Record] = []

    def change(record: Record) -> Record | None:
        found[:] = [record]
        another = record["human_label"] not in (None, given.label)
        if is_forgotten(record) or (action == "label" and another):
            return None
        new = {"human_label": given.label, "human_by": given.by, "human_at_ms": given.at_ms}
        return remember_import(record) | new

    photo_id = given.photo_id
    changed = store.change([photo_id], change)
    if not found or is_forgotten(found[0]):
        raise PermanentError(f"photo {photo_id}: not in the dataset")
    before = None if found[0]["human_label"] is None else str(found[0]["human_label"])
    if not changed:
        raise PermanentError(
            f"photo {photo_id} has the label {escaped(before)!r}",
            hint="'gleaner cloud relabel' replaces it",
        )
    log.record(action, given.by, f"{escaped(before)} -> {given.label}", [photo_id])
    return before


def rename_class(
    store: Store, log: ChangeLog, before: str, into: str, by: str, *, merge: bool = False
) -> int:
    """Give every photo of a class another class, also one given by a person, so that audits compare the same.

    Args:
        store: The dataset.
        log: Its change log.
        before: Class; also a text of an earlier version that is not a class name, or its escaped form.
        into: Class afterwards.
        by: Name of the person.
        merge: Whether the other class must exist (to join two), or must not.

    Returns:
        How many photos changed.

    Raises:
        PermanentError: No photo has the class, or the other exists and should not, or the reverse.
        TransientError: The dataset cannot be written now.
    """
    name, known = class_name(into), stored_labels(store)
    old = before if before in known else next((one for one in known if escaped(one) == before), before)
    if old not in known:
        shown = ", ".join(escaped(one) for one in sorted(known))
        raise PermanentError(f"class {escaped(before)!r}: no photo has it", hint=f"choose one of {shown}")
    if old == name:
        raise PermanentError(f"class {escaped(before)!r} has that name already")
    if merge and name not in known:
        raise PermanentError(
            f"class {name!r}: no photo has it", hint="'gleaner cloud rename-class' renames one"
        )
    if not merge and name in known:
        raise PermanentError(f"class {name!r} exists", hint="'gleaner cloud merge-class' joins two")
    anywhere = " OR ".join(f"{column} = {quoted(old)}" for column in _LABEL_COLUMNS)
    ids = sorted(str(row["photo_id"]) for row in store.scan(["photo_id"], where=f"({anywhere})"))
    log.record("merge-class" if merge else "rename-class", by, f"{escaped(old)} -> {name}", ids)

    def change(record: Record) -> Record | None:
        changed = {column: name for column in _LABEL_COLUMNS if record[column] == old}
        # `imported_label` stays: the folder still has the old name, and importing it again corrects nothing.
        return remember_import(record) | changed if changed else None

    return len(store.change(ids, change))


def stored_labels(store: Store) -> set[str]:
    """Return every class that a person, device, teacher or edge has given to a photo."""
    rows = store.scan(list(_LABEL_COLUMNS))
    return {str(name) for row in rows for name in row.values() if name is not None}


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Result of `forget_photos`.

    Attributes:
        photo_ids: Of the photos that were taken out.
        content_ids: Of their pictures, which are the keys of caches.
        tags: Tags that were removed, because their versions had the photos.
    """

    photo_ids: list[str] = field(default_factory=list)
    content_ids: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)


def forget_photos(
    store: Store,
    log: ChangeLog,
    selection: Selection,
    by: str,
) -> Forgotten:
    """Take photos out for good: from the dataset, its older versions, and so from later trainings.

    What stays is the id with two times, so that a sample that is sent again, or a label, does not bring the
    photo back. Their bytes are removed from the disk, and with them every older version: a training that
    reads one of them now fails, and versions of the model cannot be trained again exactly.

    Args:
        store: The dataset.
        log: Its change log.
        selection: Which photos.
        by: Name of the person.

    Raises:
        PermanentError: A named photo does not exist.
        TransientError: The dataset cannot be written now; call it again.
    """
    ids = find_photos(store, selection)
    return forget_ids(store, log, ids, by, detail=str(selection), still=selection.fits)


def forget_ids(
    store: Store,
    log: ChangeLog,
    ids: list[str],
    by: str,
    *,
    detail: str,
    action: Literal["forget", "retain"] = "forget",
    still: Callable[[Record], bool] = lambda _: True,
) -> Forgotten:
    """Take the photos with these ids out for good, as `forget_photos` does.

    Args:
        store: The dataset.
        log: Its change log.
        ids: Of photos in the dataset.
        by: Name of the person.
        detail: Why these, for the change log.
        action: What the change log calls it.
        still: Whether a photo may go, by its row at that moment: a person may have labelled it since.

    Raises:
        TransientError: The dataset cannot be written now; call it again.
    """
    if not ids:
        return Forgotten()
    log.record(action, by, detail, ids)
    now, contents = now_ms(), dict[str, str]()

    def change(record: Record) -> Record | None:
        if is_forgotten(record) or not still(record):
            return None
        if isinstance(record["image"], bytes):
            contents[record["photo_id"]] = content_id(record["image"])
        return forget(record, now)

    done = store.change(ids, change)
    if not done:
        return Forgotten()
    return Forgotten(done, [contents[key] for key in done if key in contents], store.purge())


@dataclass(frozen=True, kw_only=True, slots=True)
class Retention:
    """How much of the dataset is kept.

    Attributes:
        max_bytes: Of all pictures together; None without a limit.
        before_ms: Photos that arrived before this time go, UTC; None to keep them.
        labelled: Whether photos that a person or a device labelled may go too.
        gold: Whether gold photos may go too.
    """

    max_bytes: int | None = None
    before_ms: int | None = None
    labelled: bool = False
    gold: bool = False

    def rank(self, row: Mapping[str, object]) -> int | None:
        """Return when a photo goes: lower ones first, None never."""
        labelled = row["human_label"] is not None or row["device_label"] is not None
        rank = _GOLD if row["split"] == "gold" else _LABELLED if labelled else 0
        allowed = self.gold if rank == _GOLD else self.labelled if rank == _LABELLED else True
        return rank if allowed else None

    def __str__(self) -> str:
        names = [name for name in self.__slots__ if getattr(self, name) not in (None, False)]
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


@dataclass(frozen=True, slots=True)
class Excess:
    """What goes by a retention.

    Attributes:
        photo_ids: Oldest first.
        going_bytes: Of their pictures.
        left_bytes: Of all other pictures; may exceed the limit because of protected ones.
    """

    photo_ids: list[str]
    going_bytes: int
    left_bytes: int


def find_excess(store: Store, retention: Retention) -> Excess:
    """Return the photos that are too old, and then the oldest ones until the others fit the size.

    For the size, photos without a label go before labelled ones, and those before gold ones. Reads every
    picture for its length, and holds some numbers per photo in memory.

    Raises:
        TransientError: The dataset cannot be read now.
    """
    columns = ["photo_id", "received_at_ms", "split", "human_label", "device_label"]
    total, candidates = 0, []
    for row in store.sizes(columns):
        size, received = cast("int", row["image_bytes"]), cast("int", row["received_at_ms"])
        total += size
        if (rank := retention.rank(row)) is not None:
            candidates.append((rank, received, str(row["photo_id"]), size))
    oldest = -1 if retention.before_ms is None else retention.before_ms
    going = [photo for photo in candidates if photo[1] < oldest]
    left = total - sum(photo[3] for photo in going)
    for photo in sorted(photo for photo in candidates if photo[1] >= oldest):
        if retention.max_bytes is None or left <= retention.max_bytes:
            break
        going.append(photo)
        left -= photo[3]
    by_age = sorted(going, key=lambda photo: photo[1:3])
    return Excess([photo_id for _, _, photo_id, _ in by_age], total - left, left)
