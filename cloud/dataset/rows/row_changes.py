"""Decide how a sample, a label or an import changes a row of the dataset: plain functions without I/O."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

from cloud.dataset.labels import ANNOTATORS, Annotator, Label, LabelChange
from cloud.dataset.rows.forgotten import barrier_ids, is_forgotten
from cloud.dataset.schema import SCHEMA, Record, Row, as_record

Outcome: TypeAlias = Literal["stored", "duplicate", "forgotten"]


ImportOutcome: TypeAlias = Literal[
    "stored", "there", "labelled", "corrected", "kept", "forgotten", "other-split"
]


LabelOutcome: TypeAlias = Literal["stored", "waiting", "superseded", "forgotten", "refused"]


NO_TIME_LIMIT_MS = 2**53
"""Later than every time of the contract: as `now_ms`, it bounds nothing."""


def apply_sample(row: Row, existing: Record | None) -> Record | None:
    """Return the record to write when a photo arrives, or None if the photo is stored already.

    Args:
        row: The photo.
        existing: STATE_COLUMNS of the stored row with that id, if any.

    Returns:
        The photo's record. Of the labels in `row` and in `existing`, the later one of each annotator kind.
    """
    record = as_record(row)
    if existing is None:
        return record
    if existing["received_at_ms"] is not None:
        return None
    # MQTT keeps no order between topics, so a label can arrive before its sample. It is stored in a row
    # without an image, which the sample fills in here. (A second table for such labels would need commits
    # over two tables, which Lance does not have: a label could be lost or applied twice.)
    if _is_for_another(existing, row.node, row.device):
        return record  # a label on the topic of another camera; its own topic is all that it could use
    for annotator in ANNOTATORS:
        if _is_newer(existing[f"{annotator}_at_ms"], record, annotator):
            record |= {
                f"{annotator}_{part}": existing[f"{annotator}_{part}"] for part in ("label", "by", "at_ms")
            }
    return record


def apply_label(
    change: LabelChange, existing: Record | None, now_ms: int = NO_TIME_LIMIT_MS
) -> Record | None:
    """Return the record to write when a label arrives or is withdrawn, or None if nothing changes.

    Args:
        change: The label or the withdrawal.
        existing: All columns of the stored row with that id, if any.
        now_ms: Arrival, UTC. A later time of the label is a wrong clock: it counts as given now. A stored
            label from the future is older than any other.

    Returns:
        None if a label with the same or a later time is stored, or one by somebody else and this one has no
        time; there is nothing to withdraw; the photo was forgotten, or is not of the camera of the label.
    """
    annotator: Annotator = change.annotator if isinstance(change, Label) else "teacher"
    label = change.label if isinstance(change, Label) else None
    record: Record = existing or dict.fromkeys(SCHEMA.names)
    nothing_to_withdraw = label is None and record[f"{annotator}_label"] is None
    at_ms = min(change.at_ms, now_ms)
    # On equal times the stored label stays, so that a redelivered one writes nothing.
    if nothing_to_withdraw or is_forgotten(record) or _is_misplaced(change, record):
        return None
    if not _is_newer(at_ms, record, annotator, now_ms) or _is_undated_for_another(change, record, annotator):
        return None
    if existing is None:
        camera = (change.node, change.device) if isinstance(change, Label) else (None, None)
        record |= {"waiting_since_ms": now_ms, "node": camera[0], "device": camera[1]}
    return record | {
        "photo_id": change.photo_id,
        f"{annotator}_label": label,
        f"{annotator}_by": change.by,
        f"{annotator}_at_ms": at_ms,
    }


def apply_import(
    row: Row, existing: Record, now_ms: int, *, frozen: bool = False
) -> tuple[Record | None, ImportOutcome]:
    """Return the record to write when a stored photo is imported again, or None, and what that means.

    Another label than at the last import is a correction made now, not at the date of the file: to
    move a file into another class folder does not change its date. The same label as at the last import
    changes nothing, so that a correction by a person stays.

    Args:
        row: The photo, as an import reads it.
        existing: Columns of the stored row, of a photo that has arrived.
        now_ms: Time of the import, UTC.
        frozen: Whether a photo keeps the split that it is stored under, without being an error.
    """
    stored_split = existing["split"]
    if is_forgotten(existing):
        return None, "forgotten"
    moved = stored_split != row.split and "gold" in {stored_split, row.split}
    if moved and not frozen:
        return None, "other-split"
    changes: Record = {}
    if existing["imported_label"] != row.imported_label:
        changes = {"imported_label": row.imported_label, "source": row.source}
    if moved and row.split == "gold":
        changes["split"] = "gold"
    outcome, at_ms = _imported_label(row, existing, now_ms)
    if outcome in {"labelled", "corrected"}:
        changes |= {"human_label": row.human_label, "human_by": row.human_by, "human_at_ms": at_ms}
    elif changes.keys() == {"imported_label", "source"} and _last_import(existing) == row.imported_label:
        changes = {}  # a dataset of an earlier version: nothing new, and each row written costs its image
    return (existing | changes if changes else None), outcome


def remember_import(record: Record) -> Record:
    """Return a row that keeps the label of its latest import, before a person changes its label."""
    return record | {"imported_label": _last_import(record)}


def _last_import(existing: Record) -> str | None:
    """Return the label that the latest import gave to a photo, None if it was never imported."""
    if existing["imported_label"] is not None or existing["origin"] != "import":
        label: str | None = existing["imported_label"]
    else:  # a dataset of an earlier version, where nothing but another import could change this label
        label = existing["human_label"]
    return label


def _imported_label(row: Row, existing: Record, now_ms: int) -> tuple[ImportOutcome, int | None]:
    """Return what an import means for the label of a stored photo, and the time of the new label."""
    human = existing["human_label"]
    if human == row.human_label:
        return "there", None
    before = _last_import(existing)
    if before == row.imported_label:
        return "kept", None
    if before is not None:
        return "corrected", now_ms
    if _is_newer(row.human_at_ms, existing, "human", now_ms):
        return ("labelled" if human is None else "corrected"), row.human_at_ms
    return "kept", None


def _is_misplaced(change: LabelChange, record: Record) -> bool:
    """Return whether a label on a camera's topic is for a photo that this camera did not take."""
    if not isinstance(change, Label) or change.node is None or record["photo_id"] is None:
        return False
    return bool((record["node"], record["device"]) != (change.node, change.device))


def _is_undated_for_another(change: LabelChange, record: Record, annotator: Annotator) -> bool:
    """Return whether a label without a time, which may be a redelivery, meets one by somebody else."""
    if not isinstance(change, Label) or change.dated or record[f"{annotator}_label"] is None:
        return False
    return bool(record[f"{annotator}_by"] != change.by)


def _is_for_another(waiting: Record, node: str | None, device: str | None) -> bool:
    """Return whether labels that wait for a photo came on the topic of another camera."""
    return waiting["node"] is not None and (waiting["node"], waiting["device"]) != (node, device)


def apply_samples(
    rows: Mapping[str, Row],
    existing: Mapping[str, Record],
    harvested_ms: Mapping[str, int] = MappingProxyType({}),
) -> tuple[list[Record], dict[str, Outcome]]:
    """Apply many photos; all mappings are by id, and `existing` has the barriers too.

    Returns:
        The records to write, and the outcome by id.
    """
    records: list[Record] = []
    outcomes: dict[str, Outcome] = {}
    for photo_id, row in rows.items():
        if harvested_ms.get(photo_id, NO_TIME_LIMIT_MS) < _barred_before_ms(row, existing):
            outcomes[photo_id] = "forgotten"
        elif (record := apply_sample(row, existing.get(photo_id))) is None:
            outcomes[photo_id] = "duplicate"
        else:
            records.append(record)
            outcomes[photo_id] = "stored"
    return records, outcomes


def _barred_before_ms(row: Row, existing: Mapping[str, Record]) -> int:
    barriers = (existing.get(barrier) for barrier in barrier_ids(row.node, row.device))
    return max((int(found["forgotten_at_ms"]) for found in barriers if found is not None), default=0)


def apply_labels(
    changes: Iterable[LabelChange],
    existing: Mapping[str, Record],
    now_ms: int = NO_TIME_LIMIT_MS,
) -> tuple[list[Record], dict[str, LabelOutcome]]:
    """Apply many labels and withdrawals, in any order; several for one photo make one record.

    Returns:
        The records to write, and the outcome by id: `superseded` only if all changes of that id were.
    """
    records: dict[str, Record] = {}
    outcomes: dict[str, LabelOutcome] = {}
    for change in changes:
        before = records.get(change.photo_id, existing.get(change.photo_id))
        outcomes.setdefault(change.photo_id, _unchanged(change, before))
        record = apply_label(change, before, now_ms)
        if record is not None:
            records[change.photo_id] = record
            outcomes[change.photo_id] = "waiting" if record["received_at_ms"] is None else "stored"
    return list(records.values()), outcomes


def _unchanged(change: LabelChange, record: Record | None) -> LabelOutcome:
    """Return the outcome of a label that changes nothing."""
    if record is not None and is_forgotten(record):
        return "forgotten"
    return "refused" if record is not None and _is_misplaced(change, record) else "superseded"


def _is_newer(
    at_ms: int | None, record: Record, annotator: Annotator, now_ms: int = NO_TIME_LIMIT_MS
) -> bool:
    """Return whether a label of that time replaces the record's label of that annotator kind."""
    stored_ms = record[f"{annotator}_at_ms"]
    if at_ms is None:
        return False
    return stored_ms is None or stored_ms < at_ms or stored_ms > now_ms
