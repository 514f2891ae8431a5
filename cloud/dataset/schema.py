"""The dataset's columns, and how a sample and a label change a row: plain functions without I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa

from cloud.dataset.labels import (
    ANNOTATORS,
    Annotator,
    AnnotatorName,
    Label,
    LabelChange,
    check_class_name,
    validate,
)
from schemas import field_types
from schemas.codec import content_id
from schemas.errors import PermanentError

Split: TypeAlias = Literal["train", "gold", "stream"]
Origin: TypeAlias = Literal["sample", "import"]
Outcome: TypeAlias = Literal["stored", "duplicate", "forgotten"]
ImportOutcome: TypeAlias = Literal[
    "stored", "there", "labelled", "corrected", "kept", "forgotten", "other-split"
]
LabelOutcome: TypeAlias = Literal["stored", "waiting", "superseded", "forgotten", "refused"]
Record: TypeAlias = dict[str, Any]

# Lance refuses a second insert of a primary key only if the column is marked as such in its metadata.
# `dhash` is hexadecimal as on the wire, because a 64-bit hash does not fit a signed integer.
# `scores` is a list of structs, because Polars has no map type.
# `embedding` is a list, not binary, so that DuckDB, Polars and numpy read numbers; of variable length,
# because backbones differ.
SCHEMA = pa.schema(
    [
        pa.field(
            "photo_id",
            pa.string(),
            nullable=False,
            metadata={"lance-schema:unenforced-primary-key": "true"},
        ),
        ("revision", pa.int64()),
        ("node", pa.string()),
        ("device", pa.string()),
        ("taken_at_ms", pa.int64()),
        ("received_at_ms", pa.int64()),
        ("image", pa.large_binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("dhash", pa.string()),
        ("lane", pa.string()),
        ("edge_label", pa.string()),
        ("confidence", pa.float32()),
        ("scores", pa.list_(pa.struct([("label", pa.string()), ("score", pa.float32())]))),
        ("raw_confidence", pa.float32()),
        ("margin", pa.float32()),
        ("entropy", pa.float32()),
        ("novelty", pa.float32()),
        ("inclusion", pa.float32()),
        ("model", pa.string()),
        ("model_version", pa.int64()),
        ("embedding", pa.list_(pa.float32())),
        ("human_label", pa.string()),
        ("human_by", pa.string()),
        ("human_at_ms", pa.int64()),
        ("teacher_label", pa.string()),
        ("teacher_by", pa.string()),
        ("teacher_at_ms", pa.int64()),
        ("split", pa.string()),
        ("origin", pa.string()),
        ("source", pa.string()),
        ("imported_label", pa.string()),
        ("forgotten_at_ms", pa.int64()),
        ("device_label", pa.string()),
        ("device_by", pa.string()),
        ("device_at_ms", pa.int64()),
        ("waiting_since_ms", pa.int64()),
        ("device_group", pa.string()),
        ("model_variant", pa.string()),
    ]
)
NO_TIME_LIMIT_MS = 2**53
"""Later than every time of the contract: as `now_ms`, it bounds nothing."""
STATE_COLUMNS = ["photo_id", "revision", "received_at_ms", "forgotten_at_ms", "node", "device"] + [
    f"{annotator}_{part}" for annotator in ANNOTATORS for part in ("label", "by", "at_ms")
]
"""Columns that decide how a sample changes a row; none of them is large."""

SourceName = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
_Pixels = Annotated[int, msgspec.Meta(ge=1, le=65_535)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A photo to store: harvested by an edge (`sample`) or imported from a folder (`import`).

    Args:
        photo_id: 32 hex digits.
        image: Encoded JPEG or PNG.
        width: Of the image, pixels.
        height: Of the image, pixels.
        received_at_ms: Arrival in the cloud, UTC.
        node: Edge node that harvested it.
        device: Device that took it.
        taken_at_ms: When the photo was taken, UTC.
        dhash: 64-bit difference hash, 16 hex digits.
        lane: Why it was harvested.
        edge_label: Class predicted by the edge's model.
        confidence: Calibrated probability of that class, 0 to 1.
        scores: Probability by class, 0 to 1.
        raw_confidence: Confidence before temperature scaling.
        margin: Probability of the best class minus that of the second.
        entropy: Of the scores, normalised to 1.
        novelty: Scaled distance to the nearest training embedding; above 1 is out of distribution.
        inclusion: Inclusion probability of the photo in lane audit.
        model: Name of the edge's model.
        model_version: Of the edge's model.
        embedding: float32, little endian; empty if unknown.
        human_label: Class given by a human.
        human_by: Name of the human.
        human_at_ms: When it was given, UTC.
        teacher_label: Class given by a teacher model.
        teacher_by: Name of that model.
        teacher_at_ms: When it was given, UTC.
        device_label: Class given by the device that took it.
        device_by: Name that it gave.
        device_at_ms: When it was given, UTC.
        split: `gold` is measured on, `train` and `stream` are trained on.
        origin: `sample` or `import`.
        source: File or record that it was imported from, relative to what was imported.
        imported_label: Class that its latest import gave, whatever a person said since.
        forgotten_at_ms: When the photo was taken out for good; such a row is only its mark.
        waiting_since_ms: When a label came whose photo has not arrived; None for a photo.
        device_group: Group of the device when it was answered, empty for none; None if unknown.
        model_variant: LiteRT variant of that model, empty for its graph; None if unknown.

    Raises:
        PermanentError: A field is out of range.
    """

    photo_id: field_types.PhotoId
    image: field_types.Image
    width: _Pixels
    height: _Pixels
    received_at_ms: field_types.Milliseconds
    node: field_types.Name | None = None
    device: field_types.Name | None = None
    taken_at_ms: field_types.Milliseconds | None = None
    dhash: field_types.DHash | None = None
    lane: Annotated[str, msgspec.Meta(max_length=32)] | None = None
    edge_label: field_types.Label | None = None
    confidence: field_types.Probability | None = None
    scores: field_types.Scores = field(default_factory=dict)
    raw_confidence: field_types.Raw = None
    margin: field_types.Margin = None
    entropy: field_types.Entropy = None
    novelty: field_types.Novelty = None
    inclusion: field_types.Probability | None = None
    model: field_types.ModelName | None = None
    model_version: field_types.ModelVersion | None = None
    embedding: bytes = b""
    human_label: field_types.Label | None = None
    human_by: AnnotatorName | None = None
    human_at_ms: field_types.Milliseconds | None = None
    teacher_label: field_types.Label | None = None
    teacher_by: AnnotatorName | None = None
    teacher_at_ms: field_types.Milliseconds | None = None
    split: Split = "stream"
    origin: Origin = "sample"
    source: SourceName | None = None
    imported_label: field_types.Label | None = None
    forgotten_at_ms: field_types.Milliseconds | None = None
    device_label: field_types.Label | None = None
    device_by: AnnotatorName | None = None
    device_at_ms: field_types.Milliseconds | None = None
    waiting_since_ms: field_types.Milliseconds | None = None
    device_group: field_types.Group | None = None
    model_variant: field_types.Variant | None = None

    def __post_init__(self) -> None:
        subject = f"row {self.photo_id!r:.40}"
        validate(self, subject)
        if len(self.embedding) % 4:
            got = f"{len(self.embedding)} bytes"
            raise PermanentError(f"embedding of {subject}", expected="a multiple of 4 bytes", got=got)
        for annotator in ANNOTATORS:
            given = [getattr(self, f"{annotator}_{part}") is not None for part in ("label", "by", "at_ms")]
            if any(given) and not all(given):
                expected = f"{annotator}_label, {annotator}_by and {annotator}_at_ms, or none of them"
                raise PermanentError(f"{annotator} label of {subject}", expected=expected, got=given)
        for label in (self.human_label, self.device_label, self.teacher_label, self.imported_label):
            if label is not None:
                check_class_name(label, subject)


def as_record(row: Row) -> Record:
    """Return the row with the table's columns, all but `revision`."""
    record: Record = {item.name: getattr(row, item.name) for item in fields(row)}
    record["scores"] = [{"label": label, "score": score} for label, score in row.scores.items()]
    record["embedding"] = np.frombuffer(row.embedding, "<f4") if row.embedding else None
    return record


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

    Another label than at the last import is a correction that is made now, whatever the date of the file: to
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
    """Return a row that says what its latest import gave, before a person changes its label."""
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


def is_forgotten(record: Record) -> bool:
    """Return whether a row is only the mark of a photo that was taken out for good."""
    return record["forgotten_at_ms"] is not None


def forget(record: Record, now_ms: int) -> Record | None:
    """Return the mark that replaces a photo: its id and two times; None if it is one already.

    The mark keeps `received_at_ms`, so that a sample that is sent again is a duplicate and stays out.
    """
    if is_forgotten(record):
        return None
    kept = {name: record[name] for name in ("photo_id", "revision")}
    received_ms = record["received_at_ms"] if record["received_at_ms"] is not None else now_ms
    empty = dict.fromkeys(SCHEMA.names)
    return empty | kept | {"received_at_ms": received_ms, "forgotten_at_ms": now_ms}


def barrier_ids(node: str | None, device: str | None) -> tuple[str, ...]:
    """Return the ids of the barriers that a photo of a camera must pass: of the device, its node, and all.

    A barrier keeps out what was forgotten before it arrived. It is a row like the mark of a photo, whose
    `forgotten_at_ms` is the time up to which photos are kept out.
    """
    cameras = (f"{node}/{device}", f"{node}/*", "*/*")
    return tuple(content_id(f"forgotten {camera}".encode()) for camera in cameras)


def barrier_id(node: str | None, device: str | None) -> str:
    """Return the id of the barrier for a device, for a node without one, or for all nodes."""
    return barrier_ids(node, device)[0 if device is not None else 1 if node is not None else 2]


def raise_barrier(photo_id: str, before_ms: int, existing: Record | None, now_ms: int) -> Record | None:
    """Return the record of a barrier, None if it is as high already."""
    if existing is not None and existing["forgotten_at_ms"] >= before_ms:
        return None
    record = existing or dict.fromkeys(SCHEMA.names) | {"photo_id": photo_id, "received_at_ms": now_ms}
    return record | {"forgotten_at_ms": before_ms}


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
