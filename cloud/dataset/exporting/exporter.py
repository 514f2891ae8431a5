"""Read the photos to export, and write them in one of the formats."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from cloud.dataset.curation import Selection, find_photos
from cloud.dataset.example import LeftOut
from cloud.dataset.exporting.photo import ExportedPhoto
from cloud.dataset.exporting.write_arrays import write_parquet, write_tfrecord
from cloud.dataset.exporting.write_files import write_coco, write_fiftyone, write_folder, write_label_studio
from cloud.dataset.schema import Record, Split
from cloud.dataset.store import Store
from cloud.dataset.training_set import resolve_label
from cloud.progress import NoProgress, Progress
from schemas import lanes
from schemas.class_names import ClassNameError, class_name
from schemas.errors import PermanentError

Writer: TypeAlias = Callable[[Path, Iterator[ExportedPhoto], Sequence[str]], None]

FORMATS: Mapping[str, Writer] = MappingProxyType(
    {
        "folder": write_folder,
        "coco": write_coco,
        "parquet": write_parquet,
        "tfrecord": write_tfrecord,
        "fiftyone": write_fiftyone,
        "label-studio": write_label_studio,
    }
)
_IMAGES_AT_ONCE = 64
_LABEL_COLUMNS = ["human_label", "device_label", "teacher_label", "edge_label", "lane"]
_COLUMNS = [
    *_LABEL_COLUMNS,
    *("image", "width", "height", "split", "source", "node", "device", "confidence"),
    *("human_by", "device_by", "teacher_by", "model", "model_version"),
]


def export(
    store: Store,
    directory: Path,
    kind: str,
    selection: Selection,
    progress: Progress | None = None,
) -> tuple[Counter[str], list[LeftOut]]:
    """Write the labelled photos of a selection into a new folder.

    Args:
        store: The dataset.
        directory: Must not exist, or be empty.
        kind: One of `FORMATS`.
        selection: Which photos; those without a label are left out.
        progress: Advances by photos.

    Returns:
        Number of photos by class, and what was left out.

    Raises:
        PermanentError: The folder has files, or no photo has a label.
        TransientError: The dataset cannot be read now.
    """
    if directory.exists() and any(directory.iterdir()):
        raise PermanentError(f"folder {directory} is not empty", hint="export into a new one")
    progress = progress or NoProgress()
    ids = find_photos(store, selection)
    labels, left_out = _labels(store, ids)
    if not labels:
        raise PermanentError("no photo to export has a label", hint="see 'gleaner cloud list'")
    directory.mkdir(parents=True, exist_ok=True)
    progress.start("export", len(labels))
    counts: Counter[str] = Counter()

    def photos() -> Iterator[ExportedPhoto]:
        wanted = sorted(labels)
        for start in range(0, len(wanted), _IMAGES_AT_ONCE):
            rows = store.find(wanted[start : start + _IMAGES_AT_ONCE], _COLUMNS)
            for photo_id, row in rows.items():
                photo = _photo(photo_id, row, labels[photo_id])
                if photo is None:
                    left_out.append(LeftOut(photo_id, "the row is damaged"))
                    continue
                counts[photo.label] += 1
                yield photo
                progress.advance()

    FORMATS[kind](directory, photos(), sorted(set(labels.values())))
    return counts, left_out


def _labels(store: Store, ids: Sequence[str]) -> tuple[dict[str, str], list[LeftOut]]:
    """Return the label of each photo that has one."""
    labels: dict[str, str] = {}
    left_out: list[LeftOut] = []
    for photo_id, row in store.find(ids, _LABEL_COLUMNS).items():
        resolved = _resolved(row)
        if resolved is None:
            left_out.append(LeftOut(photo_id, "no label"))
            continue
        try:
            labels[photo_id] = class_name(resolved[0])
        except ClassNameError as error:
            left_out.append(LeftOut(photo_id, "the label is no class name", str(error)))
    return labels, left_out


def _resolved(row: Record) -> tuple[str, str] | None:
    # As in a training: the edge's own label counts where it was sure.
    edge = row["edge_label"] if row["lane"] == lanes.AUTO else None
    return resolve_label(row["human_label"], row["teacher_label"], edge, row["device_label"])


def _photo(photo_id: str, row: Record, label: str) -> ExportedPhoto | None:
    if not isinstance(row["image"], bytes) or not row["image"]:
        return None
    resolved = _resolved(row)
    source = resolved[1] if resolved else "human"
    split: Split = row["split"]
    model = f"{row['model']}/{row['model_version']}" if row["model"] else ""
    by = {"human": row["human_by"], "device": row["device_by"], "teacher": row["teacher_by"], "edge": model}
    return ExportedPhoto(
        photo_id=photo_id,
        image=row["image"],
        width=row["width"],
        height=row["height"],
        label=label,
        source=source,  # type: ignore[arg-type]  # one of resolve_label's
        by=str(by[source] or ""),
        split=split,
        origin=str(row["source"] or f"{row['node'] or ''}/{row['device'] or ''}"),
        confidence=row["confidence"] if source == "edge" else None,
    )
