"""Import labelled photos from a folder with one sub-folder per class."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cloud.dataset.image_check import check_image
from cloud.dataset.schema import Split
from cloud.dataset.store import Label, Row, Store
from cloud.progress import NoProgress, Progress
from schemas.codec import content_id
from schemas.errors import PermanentError

MAX_IMAGE_BYTES = 2 * 1024 * 1024
MAX_PIXELS = 50_000_000

_BATCH_PHOTOS = 64
_BATCH_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class ImportResult:
    """Counts of an import.

    Args:
        stored: New photos.
        duplicate: Photos with the same content as one in the dataset.
        labelled: Duplicates with a new human label: harvested earlier, labelled by this import.
        skipped: Reason by name of each file that was left out.
    """

    stored: int = 0
    duplicate: int = 0
    labelled: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


def import_folder(
    store: Store,
    directory: Path,
    split: Split,
    progress: Progress | None = None,
    by: str = "import",
) -> ImportResult:
    """Import the JPEG and PNG files of each class folder, at most 2 MiB and 50 megapixels each.

    The folder's name is stored as a human label, dated by the file's modification time: a label that was
    given later is kept, and a second run changes nothing. Unusable files are skipped.

    Args:
        store: The dataset.
        directory: Folder of the class folders.
        split: Split of the photos.
        progress: Advances by files.
        by: Name of the person who labelled them.

    Returns:
        Counts, and the skipped files: damaged, too large, in two classes, or stored under another split
        where one of the two is the gold set (a photo must not be both trained and measured on).

    Raises:
        PermanentError: No class folder has files.
        TransientError: The dataset cannot be written now; the batches before are stored.
    """
    files = _class_files(directory)
    result, classes = ImportResult(), dict[str, str]()
    progress = progress or NoProgress()
    progress.start("import", len(files))
    for batch in _batches(files):
        photos, unreadable = _read_batch(directory, batch, split, by, classes)
        result = _add(result, _store_batch(store, photos, split), skipped=unreadable)
        progress.advance(len(batch))
    return result


def read_row(path: Path, split: Split, by: str) -> Row:
    """Read a photo as a row; the name of its folder is the label, the digest of its content the id.

    Raises:
        PermanentError: It is not a JPEG or PNG, is damaged, or is too large.
        OSError: The file cannot be read.
    """
    status = path.stat()
    if status.st_size > MAX_IMAGE_BYTES:
        raise PermanentError(
            f"file {path.name}", expected=f"at most {MAX_IMAGE_BYTES} bytes", got=f"{status.st_size} bytes"
        )
    image = path.read_bytes()
    header = check_image(image, MAX_PIXELS, f"file {path.name}")
    return Row(
        photo_id=content_id(image),
        image=image,
        width=header.width,
        height=header.height,
        received_at_ms=time.time_ns() // 1_000_000,
        human_label=path.parent.name,
        human_by=by,
        human_at_ms=max(0, status.st_mtime_ns // 1_000_000),  # a file can be dated before 1970
        split=split,
        origin="import",
    )


def _read_batch(
    directory: Path, batch: list[Path], split: Split, by: str, classes: dict[str, str]
) -> tuple[dict[str, Row], dict[str, str]]:
    """Read files into rows by name, and reasons by name for those that are skipped.

    `classes` has the class of every photo id of the folder so far, and is updated.
    """
    rows, skipped = dict[str, Row](), dict[str, str]()
    for path in batch:
        name = str(path.relative_to(directory))
        try:
            row = read_row(path, split, by)
        except (PermanentError, OSError) as error:
            skipped[name] = str(error)
            continue
        first_class = classes.setdefault(row.photo_id, path.parent.name)
        if first_class == path.parent.name:
            rows[name] = row
        else:
            skipped[name] = f"file {path.name}: the same photo is in class folder {first_class!r} too"
    return rows, skipped


def _store_batch(store: Store, rows: dict[str, Row], split: Split) -> ImportResult:
    """Store new photos, and add the label to those that are stored already."""
    outcomes = store.upsert(list(rows.values()))
    known = store.find([key for key, outcome in outcomes.items() if outcome == "duplicate"], ["split"])
    # Gold photos must not be trained on, nor trained photos measured on. Other splits may mix.
    conflicting = {
        key: row["split"]
        for key, row in known.items()
        if row["split"] != split and "gold" in {row["split"], split}
    }
    labels = store.label([_label(row) for row in rows.values() if row.photo_id in known.keys() - conflicting])
    skipped = {
        name: f"file {name}: already stored under split {conflicting[row.photo_id]}, not {split}"
        for name, row in rows.items()
        if row.photo_id in conflicting
    }
    stored = len(outcomes) - len(known)
    return ImportResult(
        stored=stored,
        duplicate=len(rows) - stored - len(skipped),
        labelled=sum(outcome == "stored" for outcome in labels.values()),
        skipped=skipped,
    )


def _label(row: Row) -> Label:
    assert row.human_label is not None
    assert row.human_by is not None
    assert row.human_at_ms is not None
    return Label(photo_id=row.photo_id, label=row.human_label, by=row.human_by, at_ms=row.human_at_ms)


def _add(total: ImportResult, batch: ImportResult, skipped: dict[str, str]) -> ImportResult:
    return ImportResult(
        total.stored + batch.stored,
        total.duplicate + batch.duplicate,
        total.labelled + batch.labelled,
        total.skipped | batch.skipped | skipped,
    )


def _class_files(directory: Path) -> list[Path]:
    """List the files of the class folders in sorted order."""
    files = [
        path
        for folder in sorted(directory.glob("*"))
        if folder.is_dir() and not folder.name.startswith(".")
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".")
    ]
    if not files:
        raise PermanentError(
            f"cannot import folder {directory}: no class folder with photos",
            hint="put the photos of each class into a folder of its name, such as DIR/cat/1.jpg",
        )
    return files


def _batches(files: list[Path]) -> Iterator[list[Path]]:
    """Group files into batches that fit into memory and are one commit each."""
    batch, size_bytes = list[Path](), 0
    for path in files:
        batch.append(path)
        # A larger file is refused before it is read.
        size_bytes += min(path.stat().st_size, MAX_IMAGE_BYTES)
        if len(batch) >= _BATCH_PHOTOS or size_bytes >= _BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch
