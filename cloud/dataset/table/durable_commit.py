"""Commit to a Lance table with one writer at a time, and durably before the version is visible.

Lance's own commit publishes a manifest that no other writer has published. It leaves two gaps:

- Two writers can insert the same new key, unless the column is marked as primary key and the merge does not
  use a scalar index (with either missing, four writers with overlapping ids left duplicates in every run).
- On a local path Lance never calls fsync (seen with strace). After a power cut a manifest can exist without
  its data, and a torn manifest makes the whole table unreadable.

So a local commit writes the data, syncs it, publishes the manifest and syncs that, all under a lock on the
table. The lock excludes the processes of one machine (over NFS those of all clients that support it). Under
it nobody else inserts, so the rows are simply added (`replace`), and Lance does not compare them with the
whole table. On an object store there is no lock: `merge` compares, and Lance publishes with
`If-None-Match: *`; the loser of a race merges again on top of the winner. A process that writes to a local
table without the lock loses durability, and uniqueness where it inserts what is inserted under the lock at
that moment.
"""

import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import structlog

from bus.files.atomic_file import sync_file, sync_folder
from bus.files.file_lock import LockHeldError, exclusive_lock
from bus.files.file_url import path_of
from cloud.dataset.table.lance_package import lance, write_fragments
from schemas.distribution import install_command
from schemas.errors import PermanentError, TransientError

FOLDERS = ("data", "_deletions", "_transactions", "_versions", "_refs/tags")

_LOCK = "_writer.lock"
_MANIFEST_MAGIC = b"LANC"
_log = structlog.get_logger(__name__)


def local_root(url: str) -> Path | None:
    """Return the folder of a table on a local path or file:// URL, None for an object store.

    Raises:
        PermanentError: The file:// URL names no path of this machine.
    """
    if url.startswith("file://"):
        return path_of(url)
    return None if "://" in url else Path(url)


@contextmanager
def writer_lock(root: Path | None, timeout_s: float = 60.0) -> Iterator[None]:
    """Hold the table's writer lock for the length of a block; blocks the calling thread.

    Args:
        root: Folder of a local table. None for an object store, where nothing is locked.
        timeout_s: How long to wait for another writer.

    Raises:
        TransientError: Another writer held the lock for all of `timeout_s`.
    """
    if root is None:
        yield
        return
    with ExitStack() as stack:
        try:
            descriptor = stack.enter_context(exclusive_lock(root / _LOCK, timeout_s=timeout_s))
        except LockHeldError:
            raise TransientError(
                f"table {root}: another writer held the writer lock for {timeout_s:g} s"
            ) from None
        # A child forked during the block has the descriptor too: closing ours would not release the lock.
        stack.callback(fcntl.flock, descriptor, fcntl.LOCK_UN)
        yield


def merge(dataset: lance.LanceDataset, records: pa.Table, *, key: str = "photo_id") -> int:
    """Insert rows with new ids, and replace a stored row by one with the next revision; without the lock.

    Args:
        dataset: The newest version of the table.
        records: Whole rows, no id twice.
        key: Name of the primary key.

    Returns:
        How many rows were written. Fewer than given: another writer was first, so read and decide again.

    Raises:
        OSError: The table cannot be written now.
    """
    counts = (
        dataset.merge_insert(key)
        # Compare and swap: a row that changed since it was read has another revision and is left alone.
        .when_matched_update_all("source.revision = target.revision + 1")
        .when_not_matched_insert_all()
        # Through an index Lance does not detect that another writer inserted the same key.
        .use_index(False)  # noqa: FBT003 - Lance's signature
        .conflict_retries(20)
        .retry_timeout(timedelta(seconds=30))
        .execute(records)
    )
    return int(counts["num_inserted_rows"] + counts["num_updated_rows"])


def replace(
    dataset: lance.LanceDataset,
    records: pa.Table,
    holding: Sequence[lance.LanceFragment],
    root: Path,
    *,
    key: str = "photo_id",
) -> None:
    """Insert rows in place of those with the same ids, in one commit; the caller holds the table's lock.

    It reads only the fragments that hold such rows: a merge by Lance would read the whole table.

    Args:
        dataset: The newest version of the table.
        records: Whole rows, no id twice.
        holding: All fragments with a stored row of these ids; others among them are left as they are.
        root: Folder of the table.
        key: Name of the primary key; its values are hexadecimal digits.

    Raises:
        OSError: The table cannot be written now.
    """
    quoted = ", ".join(f"'{value}'" for value in records[key].to_pylist())
    changed, emptied = without_rows(holding, f"{key} IN ({quoted})")
    added = list(write_fragments(records, dataset, mode="append"))
    # The data must be on the disk before the manifest that refers to it, the transaction file not:
    # the manifest repeats its content.
    sync_fragments(root, [*added, *changed])
    if changed or emptied:
        operation = lance.LanceOperation.Update(emptied, changed, added, update_mode="rewrite_rows")
    else:
        operation = lance.LanceOperation.Append(added)
    committed = lance.LanceDataset.commit(dataset, operation, read_version=dataset.version)
    sync_version(root, committed.version)


def without_rows(
    fragments: Iterable[lance.LanceFragment], condition: str
) -> tuple[list[lance.FragmentMetadata], list[int]]:
    """Write deletion files for the rows that meet a condition in SQL; nothing is committed.

    Lance's own delete publishes the version before these files are synced.

    Returns:
        The fragments that have lost rows, and the numbers of those that have none left.

    Raises:
        OSError: The table cannot be written now.
    """
    after = {fragment: fragment.delete(condition) for fragment in fragments}
    changed = [left for fragment, left in after.items() if left not in (None, fragment.metadata)]
    return changed, [fragment.fragment_id for fragment, left in after.items() if left is None]


def insert(dataset: lance.LanceDataset, records: pa.Table, root: Path | None, *, key: str) -> None:
    """Insert rows with new ids.

    Args:
        dataset: The newest version of the table.
        records: Whole rows, no id twice.
        root: Folder of a local table, whose lock the caller holds; None for an object store.
        key: Name of the primary key.

    Raises:
        OSError: The table cannot be written now.
    """
    if root is None:
        merge(dataset, records, key=key)
    else:
        replace(dataset, records, [], root, key=key)


def sync_fragments(root: Path | None, fragments: Iterable[lance.FragmentMetadata]) -> None:
    """Sync the data and deletion files that the next commit refers to, and the folders they are in."""
    if root is None:
        return
    paths = []
    for fragment in fragments:
        if fragment.deletion_file is None:
            paths += [root / "data" / file.path for file in fragment.files]
        else:
            # Only the deletion file is new; the commit that added the data has synced it.
            paths.append(root / fragment.deletion_file.path(fragment.id))
    for path in paths:
        sync_file(path)
    for folder in {path.parent for path in paths}:
        sync_folder(folder)


def sync_version(root: Path | None, version: int) -> None:
    """Sync the manifest of a published version."""
    if root is not None:
        sync_file(root / "_versions" / manifest_name(version))
        sync_folder(root / "_versions")


def sync_tag(root: Path | None, name: str) -> None:
    """Sync a tag."""
    if root is not None:
        sync_file(root / "_refs" / "tags" / f"{name}.json")
        sync_folder(root / "_refs" / "tags")


def manifest_name(version: int) -> str:
    """Return the manifest's file name: Lance counts down, so that the newest is listed first."""
    return f"{2**64 - 1 - version:020d}.manifest"


def make_folders(root: Path) -> None:
    """Create the table's folders and sync their names, so that commits do not have to."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for folder_path in (root / "_refs", root, root.parent):
        sync_folder(folder_path)


def drop_torn_manifests(root: Path) -> list[str]:
    """Remove manifests without the trailer that Lance writes last, and return their names.

    A power cut during a commit leaves them. Its caller got no result, because the manifest was not
    synced. The caller holds the lock.
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


def check_conditional_writes(url: str) -> None:
    """Write one object twice at an `s3://` URL, the second time on condition that it does not exist.

    Where a store ignores the condition, two writers publish the same version, and the first one's rows are
    lost without an error. GCS and Azure have such a precondition in their own protocols.

    Args:
        url: Of the table. Any other scheme is not checked.

    Raises:
        PermanentError: The store accepted the second write, or s3fs is not installed.
        TransientError: The store cannot be reached or refuses any write.
    """
    if not url.startswith("s3://"):
        return
    try:
        import s3fs  # noqa: PLC0415  # only who creates a table on S3 needs it
    except ModuleNotFoundError:
        raise PermanentError(
            f"table {url}: creating a table on S3 requires the package s3fs",
            hint=install_command("s3"),
        ) from None
    store = s3fs.S3FileSystem(skip_instance_cache=True)
    probe = f"{url.rstrip('/')}/_probe-{secrets.token_hex(8)}"
    try:
        store.pipe_file(probe, b"1")
        try:
            store.pipe_file(probe, b"2", mode="create")
        except FileExistsError:
            return
        finally:
            store.rm_file(probe)
    except OSError as error:  # also what s3fs makes of an answer of the store
        raise TransientError(f"table {url}: cannot be written: {error}") from error
    raise PermanentError(
        f"table {url}: the object store ignores conditional writes (If-None-Match), so two writers could "
        "overwrite each other's samples",
        hint="use a store that has them, as Amazon S3 and versitygw do, or a local disk",
    )
