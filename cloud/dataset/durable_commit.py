"""Commits to a Lance table: one writer at a time, and on the disk before they are visible or answered for.

Lance commits by publishing a manifest that no other writer has published. What that leaves open:

- **Two writers insert the same new key.** Lance notices if the column is marked as primary key and the
  merge does not go through a scalar index (with either missing, four writers of overlapping ids left
  duplicates in every run). So the column is marked, the merge never uses an index, and the table has
  none. On an object store that is all: the loser of the race merges again on top of the winner.
- **Power loss.** On a local path Lance never calls fsync (seen with strace): a manifest can survive whose
  data did not, and a torn manifest makes the whole table unreadable. So a local commit has three steps:
  write the data, fsync it, publish the manifest, fsync that. The transaction file needs none, because the
  manifest repeats its content. All steps happen under an flock on the table, which the kernel releases when
  its holder dies. A manifest torn before its fsync was answered for by nobody; opening the table removes it.

The flock excludes processes of one machine (over NFS those of all clients that support it). Whoever writes
to the table without this module gives up the second point, not the first.
"""

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import lance
import pyarrow as pa
import structlog

from schemas.errors import TransientError

FOLDERS = ("data", "_deletions", "_transactions", "_versions", "_refs/tags")

_LOCK = "_writer.lock"
_MANIFEST_MAGIC = b"LANC"
_log = structlog.get_logger(__name__)


def local_root(url: str) -> Path | None:
    """Return the folder of a table on a local path or file:// URL, None for an object store."""
    if url.startswith("file://"):
        return Path(unquote(urlsplit(url).path))
    return None if "://" in url else Path(url)


@contextmanager
def exclusive(root: Path | None, timeout_s: float = 60.0) -> Iterator[None]:
    """Hold the table's writer lock; on an object store (no root) there is none and Lance's own check holds.

    Raises:
        TransientError: Another writer held it all the time.
    """
    if root is None:
        yield
        return
    descriptor = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(descriptor, root, timeout_s)
        yield
    finally:
        # Closing is not enough where a fork has inherited the descriptor.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def merge(dataset: lance.LanceDataset, records: pa.Table, root: Path | None) -> int:
    """Insert rows of new ids, and replace a stored row by one whose revision is the next.

    Args:
        dataset: The newest version of the table.
        records: Whole rows, no id twice.
        root: Folder of a local table, whose lock the caller holds.

    Returns:
        How many rows were written. Fewer than given: another writer was first, so read and decide again.
    """
    builder = (
        dataset.merge_insert("photo_id")
        # Compare and swap: a row that changed since it was read has another revision and is left alone.
        .when_matched_update_all("source.revision = target.revision + 1")
        .when_not_matched_insert_all()
        .use_index(False)  # noqa: FBT003 - Lance's signature
        .conflict_retries(20)
        .retry_timeout(timedelta(seconds=30))
    )
    if root is None:
        counts = builder.execute(records)
    else:
        transaction, counts = builder.execute_uncommitted(records)
        operation = transaction.operation
        sync_fragments(root, [*operation.new_fragments, *operation.updated_fragments])
        sync_version(root, lance.LanceDataset.commit(dataset, transaction).version)
    return int(counts["num_inserted_rows"] + counts["num_updated_rows"])


def sync_fragments(root: Path | None, fragments: Iterable[lance.FragmentMetadata]) -> None:
    """Bring to disk what a commit is about to refer to: new data and deletion files, and their names."""
    if root is None:
        return
    paths = []
    for fragment in fragments:
        if fragment.deletion_file is None:
            paths += [root / "data" / file.path for file in fragment.files]
        else:
            # Only the marks are new; the data was brought to disk by the commit that added it.
            paths.append(root / fragment.deletion_file.path(fragment.id))
    for path in {*paths, *(path.parent for path in paths)}:
        sync(path)


def sync_version(root: Path | None, version: int) -> None:
    """Bring a published version to disk."""
    if root is not None:
        sync(root / "_versions" / manifest_name(version))
        sync(root / "_versions")


def sync_tag(root: Path | None, name: str) -> None:
    """Bring a tag to disk."""
    if root is not None:
        sync(root / "_refs" / "tags" / f"{name}.json")
        sync(root / "_refs" / "tags")


def sync(path: Path) -> None:
    """Fsync a file, or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def manifest_name(version: int) -> str:
    """Return the manifest's file name: Lance counts down, so that the newest is listed first."""
    return f"{2**64 - 1 - version:020d}.manifest"


def make_folders(root: Path) -> None:
    """Make the table's folders and bring their names to disk, so that commits need not."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for folder_path in (root / "_refs", root, root.parent):
        sync(folder_path)


def drop_torn_manifests(root: Path) -> list[str]:
    """Remove manifests without the ending that Lance writes last; the caller holds the lock.

    A power loss leaves them, before the commit was answered for.
    """
    torn = [path for path in (root / "_versions").glob("*.manifest") if _is_torn(path)]
    for path in torn:
        _log.warning("store.torn_manifest_removed", path=str(path), size_bytes=path.stat().st_size)
        path.unlink()
    return [path.name for path in torn]


def _is_torn(manifest: Path) -> bool:
    with manifest.open("rb") as file:
        size_bytes = file.seek(0, os.SEEK_END)
        file.seek(max(0, size_bytes - len(_MANIFEST_MAGIC)))
        return file.read() != _MANIFEST_MAGIC


def _lock(descriptor: int, root: Path, timeout_s: float) -> None:
    """Take the lock by asking again and again: a blocking flock knows no deadline."""
    deadline_s = time.monotonic() + timeout_s
    pause_s = 0.001
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                raise TransientError(
                    f"table {root}", expected=f"the writer lock within {timeout_s} s", got="another holder"
                ) from None
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.02)
        else:
            return
