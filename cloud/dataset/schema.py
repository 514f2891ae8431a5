"""The columns of the dataset, and a photo to store in them."""

from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa

from cloud.dataset.labels import (
    ANNOTATORS,
    AnnotatorName,
    check_class_name,
    validate,
)
from cloud.dataset.table.primary_key import primary_key
from schemas import field_types
from schemas.errors import PermanentError

Split: TypeAlias = Literal["train", "gold", "stream"]
Origin: TypeAlias = Literal["sample", "import"]
Record: TypeAlias = dict[str, Any]

# `dhash` is hexadecimal as on the wire, because a 64-bit hash does not fit a signed integer.
# `scores` is a list of structs, because Polars has no map type.
# `embedding` is a list, not binary, so that DuckDB, Polars and numpy read numbers; of variable length,
# because backbones differ.
SCHEMA = pa.schema(
    [
        primary_key("photo_id"),
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
        imported_label: Class that its latest import gave; a later label by a person does not change it.
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
