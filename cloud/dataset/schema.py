"""What the dataset holds: one row per photo, and how a sample and a label change it.

Everything here is a value or a plain function; `cloud/dataset/store.py` reads and writes.

A person's label may arrive before the sample it belongs to, because MQTT keeps no order between topics.
It is stored at once as a row of its id without a photo (`received_at_ms` is null), and the sample fills
that row when it comes. A second table of waiting labels would need commits over two tables, which Lance
does not have, and a label could be lost or applied twice between them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa

from cloud.dataset.labels import JUDGES, Judge, Label, Who, Word, check
from schemas import messages
from schemas.errors import PermanentError

Split: TypeAlias = Literal["train", "gold", "stream"]
Origin: TypeAlias = Literal["sample", "import"]
Outcome: TypeAlias = Literal["stored", "duplicate"]
LabelOutcome: TypeAlias = Literal["stored", "waiting", "superseded"]
Record: TypeAlias = dict[str, Any]

# `embedding` is a list and no binary, so that DuckDB, Polars and numpy read the numbers without a cast;
# its length is free, because the next backbone may have another. `scores` is a list of structs and no map:
# Polars has no map. `dhash` is the hexadecimal text of the wire: no signedness to get wrong.
# Lance refuses a second insert of the same primary key only if the column says so in its metadata.
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
    ]
)
# Decides what becomes of a sample or a label, without reading an image.
STATE = ["photo_id", "revision", "received_at_ms"] + [
    f"{judge}_{part}" for judge in JUDGES for part in ("label", "by", "at_ms")
]

_Pixels = Annotated[int, msgspec.Meta(ge=1, le=65_535)]


def _require(sound: bool, subject: str, expected: str, got: object) -> None:  # noqa: FBT001 - reads as a sentence
    if not sound:
        raise PermanentError(subject, expected=expected, got=got)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A photo on its way into the dataset: harvested (`sample`) or brought by a person (`import`).

    Args:
        photo_id: 32 hexadecimal digits.
        image: Encoded JPEG or PNG.
        width: Of the image, pixels.
        height: Of the image, pixels.
        received_at_ms: Arrival in the cloud, UTC.
        node: Edge node that harvested it.
        device: Device that took it.
        taken_at_ms: When the photo was taken, UTC.
        dhash: 64-bit difference hash, 16 hexadecimal digits.
        lane: Why it was harvested.
        edge_label: Class that the edge's model gave.
        confidence: Of that label, 0 to 1.
        scores: Probability by class, 0 to 1.
        raw_confidence: Confidence without the temperature.
        margin: Probability of the label, less the next one's.
        entropy: Of the scores, normalised to 1.
        novelty: Distance to what the model was trained on, above 1 if it is unlike it.
        inclusion: Probability with which the photo was drawn, in lane audit.
        model: Name of the edge's model.
        model_version: Of the edge's model.
        embedding: float32, little endian; empty if there is none.
        human_label: Class that a person gave, with who and when.
        human_by: Who gave it.
        human_at_ms: When, UTC.
        teacher_label: Class that a teacher model gave, with which and when.
        teacher_by: Which teacher.
        teacher_at_ms: When, UTC.
        split: What it is for; an import names it.
        origin: Where it came from.

    Raises:
        PermanentError: A field is out of its range.
    """

    photo_id: messages.PhotoId
    image: messages.Image
    width: _Pixels
    height: _Pixels
    received_at_ms: messages.Milliseconds
    node: messages.Name | None = None
    device: messages.Name | None = None
    taken_at_ms: messages.Milliseconds | None = None
    dhash: messages.DHash | None = None
    lane: Annotated[str, msgspec.Meta(max_length=32)] | None = None
    edge_label: messages.Label | None = None
    confidence: messages.Probability | None = None
    scores: messages.Scores = field(default_factory=dict)
    raw_confidence: messages.Raw = None
    margin: messages.Margin = None
    entropy: messages.Entropy = None
    novelty: messages.Novelty = None
    inclusion: messages.Probability | None = None
    model: messages.ModelName | None = None
    model_version: messages.ModelVersion | None = None
    embedding: bytes = b""
    human_label: messages.Label | None = None
    human_by: Who | None = None
    human_at_ms: messages.Milliseconds | None = None
    teacher_label: messages.Label | None = None
    teacher_by: Who | None = None
    teacher_at_ms: messages.Milliseconds | None = None
    split: Split = "stream"
    origin: Origin = "sample"

    def __post_init__(self) -> None:
        subject = f"row {self.photo_id!r:.40}"
        check(self, subject)
        size_bytes = len(self.embedding)
        _require(
            size_bytes % 4 == 0, f"embedding of {subject}", "a multiple of 4 bytes", f"{size_bytes} bytes"
        )
        for judge in JUDGES:
            said = [getattr(self, f"{judge}_{part}") is not None for part in ("label", "by", "at_ms")]
            _require(
                all(said) or not any(said),
                f"{judge}'s label of {subject}",
                "label, by and at_ms or none of them",
                said,
            )


def as_record(row: Row) -> Record:
    """Return the row as the table holds it."""
    record: Record = {item.name: getattr(row, item.name) for item in fields(row)}
    record["scores"] = [{"label": label, "score": score} for label, score in row.scores.items()]
    record["embedding"] = np.frombuffer(row.embedding, "<f4") if row.embedding else None
    return record


def with_sample(row: Row, existing: Record | None) -> Record | None:
    """Decide what is written when a photo arrives.

    Args:
        row: The photo.
        existing: STATE columns of the stored row of that id, None if there is none.

    Returns:
        The record to write, or None if the photo is stored already. Of the labels that the row and a
        waiting label bring, the later one of each judge is kept.
    """
    record = as_record(row)
    if existing is None:
        return record
    if existing["received_at_ms"] is not None:
        return None
    for judge in JUDGES:
        if _said_before(record, judge, existing[f"{judge}_at_ms"]):
            record |= {f"{judge}_{part}": existing[f"{judge}_{part}"] for part in ("label", "by", "at_ms")}
    return record


def with_label(said: Word, existing: Record | None) -> Record | None:
    """Decide what is written when a label arrives, or is taken back.

    Args:
        said: The label, or that it is withdrawn.
        existing: All columns of the stored row of that id, None if there is none.

    Returns:
        The record to write, or None if something said at the same time or later is stored already, or there
        is nothing to take back.
    """
    judge: Judge = said.judge if isinstance(said, Label) else "teacher"
    label = said.label if isinstance(said, Label) else None
    record: Record = existing or dict.fromkeys(SCHEMA.names)
    nothing_changes = label is None and record[f"{judge}_label"] is None
    if nothing_changes or not _said_before(record, judge, said.at_ms):
        return None
    return record | {
        "photo_id": said.photo_id,
        f"{judge}_label": label,
        f"{judge}_by": said.by,
        f"{judge}_at_ms": said.at_ms,
    }


def with_samples(
    rows: Mapping[str, Row], existing: Mapping[str, Record]
) -> tuple[list[Record], dict[str, Outcome]]:
    """Decide for many photos at once; both mappings are by id.

    Returns:
        The records to write, and by id whether it is `stored` now or was before.
    """
    records = {photo_id: with_sample(row, existing.get(photo_id)) for photo_id, row in rows.items()}
    outcomes: dict[str, Outcome] = {
        photo_id: "duplicate" if record is None else "stored" for photo_id, record in records.items()
    }
    return [record for record in records.values() if record is not None], outcomes


def with_labels(
    labels: Iterable[Word], existing: Mapping[str, Record]
) -> tuple[list[Record], dict[str, LabelOutcome]]:
    """Decide for many labels and withdrawals at once, whatever their order.

    Returns:
        The records to write, and by id what became of its labels: `superseded` only if all of them were.
    """
    records: dict[str, Record] = {}
    outcomes: dict[str, LabelOutcome] = {}
    for label in labels:
        outcomes.setdefault(label.photo_id, "superseded")
        record = with_label(label, records.get(label.photo_id, existing.get(label.photo_id)))
        if record is not None:
            records[label.photo_id] = record
            outcomes[label.photo_id] = "waiting" if record["received_at_ms"] is None else "stored"
    return list(records.values()), outcomes


def _said_before(record: Record, judge: Judge, at_ms: int | None) -> bool:
    """Return whether the record's label of that judge is older than a given time (or absent)."""
    held = record[f"{judge}_at_ms"]
    return at_ms is not None and (held is None or held < at_ms)
