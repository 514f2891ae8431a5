"""One exported photo: its picture, its label, and where both come from."""

from dataclasses import dataclass

from cloud.dataset.example import Source
from cloud.dataset.schema import Split
from schemas.codec import content_id

_MAX_FOLDER_BYTES = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedPhoto:
    """A photo as an export writes it.

    Attributes:
        photo_id: 32 hex digits.
        image: Encoded JPEG or PNG.
        width: In pixels.
        height: In pixels.
        label: Class.
        source: Who gave the label: `human`, `device`, `teacher` or `edge`.
        by: Name of the person, teacher or model; empty if unknown.
        split: `train`, `gold` or `stream`.
        origin: File that it was imported from, or `NODE/DEVICE`.
        confidence: Of the edge's model in its label, None for other sources.
    """

    photo_id: str
    image: bytes
    width: int
    height: int
    label: str
    source: Source
    by: str
    split: Split
    origin: str
    confidence: float | None = None

    @property
    def file_name(self) -> str:
        """Name of its file: the id with the suffix of its format."""
        is_png = self.image.startswith(b"\x89PNG")
        return f"{self.photo_id}.{'png' if is_png else 'jpg'}"

    @property
    def facts(self) -> dict[str, str]:
        """What is known of the label, by the names that every format uses."""
        return {
            "photo_id": self.photo_id,
            "label": self.label,
            "label_source": self.source,
            "label_by": self.by,
            "split": self.split,
            "origin": self.origin,
        }


def folder_name(label: str) -> str:
    """Return a class as the name of one folder: without slashes and a leading dot, at most 200 bytes.

    What is escaped or cut off is in the metadata file, which an import reads.
    """
    name = label
    for character in "%/\\":
        name = name.replace(character, f"%{ord(character):02X}")
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    encoded = name.encode()
    if len(encoded) <= _MAX_FOLDER_BYTES:
        return name
    # Classes that begin alike must not share a folder.
    return f"{encoded[: _MAX_FOLDER_BYTES - 33].decode(errors='ignore')}-{content_id(encoded)}"
