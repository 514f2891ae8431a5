"""Find the data files of a table that cannot be read, and take them out, so that the other rows stay usable.

Lance has no checksums, so a flipped bit inside an image is found only where the image is decoded. Found here
is what stops every read and every commit: a data file that is missing, cut off, or has a damaged structure;
or the manifest of the newest version. A manifest that a power cut tore is removed when the table is opened,
because no receipt was sent for its rows; one that was whole once has confirmed rows, so a person decides.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import structlog

from bus.files.atomic_file import sync_folder
from cloud.dataset.table.durable_commit import sync_version, writer_lock
from cloud.dataset.table.lance_errors import VersionRemovedError, lance_message
from cloud.dataset.table.lance_package import lance
from cloud.dataset.table.lance_table import BATCH_ROWS, Table
from schemas.errors import PermanentError, TransientError

log = structlog.get_logger()

ASIDE = "_damaged"
"""Folder inside a local table that keeps the data files which `set_aside` took out."""


_FIRST_MANIFEST = 2**64 - 1
"""Lance counts manifests down from here."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A fragment of the table that cannot be read.

    Args:
        fragment: Its number.
        rows: How many rows it has, according to the manifest.
        files: Names of its data files.
        reason: Lance's error.
    """

    fragment: int
    rows: int
    files: tuple[str, ...]
    reason: str


def find_damage(table: Table, columns: list[str] | None = None) -> list[Damage]:
    """Read every row of the newest version and return the fragments that fail; empty for a healthy table.

    Takes as long as reading the whole table; memory is bounded by a batch of images.

    Args:
        table: The table.
        columns: Only these; None for all.

    Raises:
        TransientError: The table itself is missing.
    """
    found = []
    for fragment in table.open_version().get_fragments():
        try:
            for batch in fragment.to_batches(columns=columns, batch_size=BATCH_ROWS):
                batch.validate(full=True)
        except (OSError, ValueError) as error:  # Arrow's errors are ValueErrors
            found.append(_damage_of(fragment, error))
    return found


def scan_undamaged(
    table: Table, columns: Sequence[str], *, where: str, version: int | str | None = None
) -> Iterator[dict[str, object] | Damage]:
    """Stream rows as `Store.scan` does, but skip parts of the table that cannot be read.

    Args:
        table: The table.
        columns: Names of its columns.
        where: Condition in SQL.
        version: Number or tag, None for the newest.

    Yields:
        One dict per row, in any order, and one `Damage` per fragment that cannot be read to its end.

    Raises:
        PermanentError: The version does not exist.
        TransientError: No fragment can be read, the table is on an object store and one cannot, or the
            version was removed while it was read.
        ValueError: The condition or a column is invalid.
    """
    dataset = table.open_version(version)
    fragments = dataset.get_fragments()
    lost = 0
    for fragment in fragments:
        try:
            scanner = dataset.scanner(
                columns=list(columns),
                filter=where,
                fragments=[fragment],
                batch_size=BATCH_ROWS,
                late_materialization=["image"],
            )
            with table.reading(dataset):
                for batch in scanner.to_batches():
                    yield from batch.to_pylist()
        except VersionRemovedError:
            raise
        except TransientError as error:
            lost += 1
            # An object store that cannot be reached now has every row a moment later.
            if table.root is None or lost == len(fragments):
                raise
            yield _damage_of(fragment, error)


def _damage_of(fragment: lance.LanceFragment, error: Exception) -> Damage:
    """Describe a fragment that failed with an error."""
    metadata = fragment.metadata
    names = tuple(file.path for file in metadata.files)
    return Damage(fragment.fragment_id, metadata.num_rows, names, lance_message(error))


def set_aside(table: Table, damage: list[Damage]) -> Path:
    """Remove damaged fragments from the newest version, and move their files to `ASIDE`.

    Their rows are lost to the dataset: the edges have deleted them after their receipts. Older versions and
    tags that refer to the files cannot be read where they need them, as before.

    Args:
        table: A table on a local path.
        damage: What `find_damage` returned.

    Returns:
        The folder with the files.

    Raises:
        PermanentError: The table is on an object store, where an unreadable file may be back a moment later.
        TransientError: The table cannot be written now.
    """
    if table.root is None:
        raise PermanentError(
            f"table {table.url} is on an object store",
            hint="restore its data files with the store's own versions or backups",
        )
    aside = table.root / ASIDE
    try:
        with writer_lock(table.root):
            dataset = table.open_version()
            operation = lance.LanceOperation.Delete([], [one.fragment for one in damage], "damaged")
            committed = lance.LanceDataset.commit(dataset, operation, read_version=dataset.version)
            sync_version(table.root, committed.version)
            aside.mkdir(exist_ok=True)
            # After the commit: moved before it, a crash would leave a table that refers to missing files.
            for name in (name for one in damage for name in one.files):
                path = table.root / "data" / name
                if path.exists():
                    shutil.move(path, aside / name)
            sync_folder(aside)
    except OSError as error:
        raise table.transient_error("cannot be repaired", error) from error
    for one in damage:
        log.warning("store.fragment_set_aside", fragment=one.fragment, rows=one.rows, error=one.reason)
    return aside


class DamagedManifest(NamedTuple):
    """A manifest that Lance cannot read.

    Args:
        path: Of the file.
        version: Of the table.
        reason: Lance's error.
    """

    path: Path
    version: int
    reason: str


def find_damaged_manifests(root: Path) -> list[DamagedManifest]:
    """Return the newest manifests that cannot be read, the newest first.

    Args:
        root: Folder of a local table.

    Returns:
        Empty if the newest version can be read, or if none can: then there is nothing to go back to.
    """
    found = []
    for path in sorted((root / "_versions").glob("*.manifest")):
        if not path.stem.isdigit():
            continue
        version = _FIRST_MANIFEST - int(path.stem)
        try:
            lance.dataset(str(root), version=version)
        except (OSError, ValueError) as error:
            found.append(DamagedManifest(path, version, lance_message(error)))
        else:
            return found
    return []


def set_manifests_aside(root: Path, damaged: list[DamagedManifest]) -> Path:
    """Move manifests to the folder `ASIDE` of their table, and return it.

    The rows that only these versions have are lost to the dataset; their data files stay where they are.
    """
    aside = root / ASIDE
    with writer_lock(root):
        aside.mkdir(exist_ok=True)
        for one in damaged:
            shutil.move(one.path, aside / one.path.name)
            log.warning("store.manifest_set_aside", version=one.version, error=one.reason)
        sync_folder(aside)
        sync_folder(root / "_versions")
    return aside
