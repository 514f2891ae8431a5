"""TODO."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cloud.dataset.image_check import check_image
from cloud.dataset.schema import Split
from cloud.dataset.store import Label, Row, Store
from cloud.progress import Progress, Silent
from schemas.errors import PermanentError

MAX_IMAGE_BYTES = 2 * 1024 * 1024


MAX_PIXELS = 50_000_000


_BATCH_PHOTOS = 64


_BATCH_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Imported:
    """What became of the files of a folder.

    Args:
        stored: Photos that are new.
        duplicate: Photos that were there already, with the same content.
        labelled: Of the duplicates, those whose label is new: harvested, now named by a person.
        skipped: Files left out, by name, with the reason.
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
) -> Imported:
    """Bring in labelled photos: one folder per class, JPEG or PNG, each at most 2 MiB and 50 megapixels.

    The folder's name is a person's label, given when the file was last changed; so a label that someone
    gave later holds, and a second run changes nothing. Files that cannot be used are skipped, not fatal.

    Args:
        store: The dataset.
        directory: Folder of the class folders.
        split: What the photos are for.
        progress: Shows the files done.
        by: Who labelled them.

    Returns:
        Counts, and the skipped files: broken, too large, in two classes, or stored under another split
        (a photo of the gold set must not be trained on, and the reverse).

    Raises:
        PermanentError: No class folder.
    """
    files = _class_files(directory)
    imported, classes = Imported(), dict[str, str]()
    progress = progress or Silent()
    progress.start("import", len(files))
    for batch in _batches(files):
        photos, unread = _read_batch(directory, batch, split, by, classes)
        imported = _add(imported, _store_batch(store, photos, split), skipped=unread)
        progress.advance(len(batch))
    return imported


def read_row(path: Path, split: Split, by: str) -> Row:
    """Read a labelled photo; its folder's name is the label.

    Raises:
        PermanentError: No JPEG or PNG, broken, or too large.
    """
    status = path.stat()
    if status.st_size > MAX_IMAGE_BYTES:
        raise PermanentError(
            f"file {path.name}", expected=f"at most {MAX_IMAGE_BYTES} bytes", got=f"{status.st_size} bytes"
        )
    image = path.read_bytes()
    header = check_image(image, MAX_PIXELS, f"file {path.name}")
    return Row(
        photo_id=hashlib.blake2b(image, digest_size=16).hexdigest(),
        image=image,
        width=header.width,
        height=header.height,
        received_at_ms=time.time_ns() // 1_000_000,
        human_label=path.parent.name,
        human_by=by,
        human_at_ms=max(0, status.st_mtime_ns // 1_000_000),
        split=split,
        origin="import",
    )


def _read_batch(
    directory: Path, batch: list[Path], split: Split, by: str, classes: dict[str, str]
) -> tuple[dict[str, Row], dict[str, str]]:
    """Read files, by name; `classes` remembers the label of every photo of the folder so far."""
    rows, skipped = dict[str, Row](), dict[str, str]()
    for path in batch:
        name = str(path.relative_to(directory))
        try:
            row = read_row(path, split, by)
        except (PermanentError, OSError) as error:
            skipped[name] = str(error)
            continue
        before = classes.setdefault(row.photo_id, path.parent.name)
        if before == path.parent.name:
            rows[name] = row
        else:
            skipped[name] = f"file {path.name}: expected a photo in one class only, got it in {before} too"
    return rows, skipped


def _store_batch(store: Store, rows: dict[str, Row], split: Split) -> Imported:
    """Store photos; of those that were there already, store the person's label."""
    outcomes = store.upsert(list(rows.values()))
    known = store.find([key for key, outcome in outcomes.items() if outcome == "duplicate"], ["split"])
    elsewhere = {
        key: row["split"]
        for key, row in known.items()
        if row["split"] != split and "gold" in {row["split"], split}
    }
    said = store.label([_label(row) for row in rows.values() if row.photo_id in known.keys() - elsewhere])
    skipped = {
        name: f"file {name}: expected split {split}, got it stored under {elsewhere[row.photo_id]}"
        for name, row in rows.items()
        if row.photo_id in elsewhere
    }
    stored = len(outcomes) - len(known)
    return Imported(
        stored=stored,
        duplicate=len(rows) - stored - len(skipped),
        labelled=sum(outcome == "stored" for outcome in said.values()),
        skipped=skipped,
    )


def _label(row: Row) -> Label:
    assert row.human_label is not None
    assert row.human_by is not None
    assert row.human_at_ms is not None
    return Label(photo_id=row.photo_id, label=row.human_label, by=row.human_by, at_ms=row.human_at_ms)


def _add(one: Imported, other: Imported, skipped: dict[str, str]) -> Imported:
    return Imported(
        one.stored + other.stored,
        one.duplicate + other.duplicate,
        one.labelled + other.labelled,
        one.skipped | other.skipped | skipped,
    )


def _class_files(directory: Path) -> list[Path]:
    """List the files of the class folders in a fixed order."""
    files = [
        path
        for folder in sorted(directory.glob("*"))
        if folder.is_dir() and not folder.name.startswith(".")
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".")
    ]
    if not files:
        raise PermanentError(
            f"folder {directory}", expected="one folder per class with photos in it", got="none"
        )
    return files


def _batches(files: list[Path]) -> Iterator[list[Path]]:
    """Group files so that a batch fits in memory and is worth a commit."""
    batch, size_bytes = list[Path](), 0
    for path in files:
        batch.append(path)
        size_bytes += min(path.stat().st_size, MAX_IMAGE_BYTES)
        if len(batch) >= _BATCH_PHOTOS or size_bytes >= _BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch
