"""Rules of cloud/dataset/table/durable_commit.py: one writer at a time, and files synced in order."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import lance
import pytest

from cloud.dataset.store import Label, Row, Store
from cloud.dataset.table.durable_commit import drop_torn_manifests, local_root, manifest_name, writer_lock
from schemas.errors import TransientError


def photo(number: int) -> Row:
    return Row(photo_id=f"{number:032x}", image=b"x", width=1, height=1, received_at_ms=1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "photos.lance")


@pytest.fixture
def synced(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Record the paths that are synced, each with whether the next version's manifest existed then."""
    calls: list[tuple[str, bool]] = []
    assert store.table.root is not None
    root, real, published = (
        store.table.root,
        os.fsync,
        store.table.root / "_versions" / manifest_name(store.version + 1),
    )

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        calls.append((str(path.relative_to(root.resolve())), published.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return calls


def files(store: Store) -> set[str]:
    """Return the files that a reader needs: neither transactions, which manifests repeat, nor the hint."""
    assert store.table.root is not None
    paths = {
        str(path.relative_to(store.table.root)) for path in store.table.root.rglob("*") if path.is_file()
    }
    return {path for path in paths if not path.startswith("_transactions") and "hint" not in path}


def add(store: Store) -> None:
    store.upsert([photo(1)])


def label(store: Store) -> None:
    store.label([Label(photo_id=photo(8).photo_id, label="cat", by="ann", at_ms=1)])


@pytest.mark.parametrize("write", [add, label])
def test_data_is_synced_before_the_manifest_is_visible(
    store: Store, write: Callable[[Store], None], request: pytest.FixtureRequest
) -> None:
    """Files and folders that a version refers to are synced before its manifest is published, then that."""
    store.upsert([photo(8), photo(9)])
    before = files(store)
    synced: list[tuple[str, bool]] = request.getfixturevalue("synced")
    write(store)
    new = files(store) - before
    assert any(path.startswith("data/") for path in new)
    assert any(path.startswith("_deletions/") for path in new) == (write is label)
    for path in new | {str(Path(path).parent) for path in new}:
        assert (path, path.startswith("_versions")) in synced


def test_compaction_is_synced_before_it_is_visible(store: Store, request: pytest.FixtureRequest) -> None:
    """Rewritten data is synced too, because the new version no longer refers to the old copy."""
    for number in range(3):
        store.upsert([photo(number)])
    before = files(store)
    synced: list[tuple[str, bool]] = request.getfixturevalue("synced")
    store.table.compact()
    data = {path for path in files(store) - before if path.startswith("data/")}
    assert data <= {path for path, _ in synced}
    assert f"_versions/{manifest_name(store.version)}" in {path for path, _ in synced}


def test_duplicate_syncs_the_version_that_has_it(store: Store, request: pytest.FixtureRequest) -> None:
    """The version is synced before `duplicate` is returned: its writer may have died before the sync."""
    store.upsert([photo(1)])
    synced: list[tuple[str, bool]] = request.getfixturevalue("synced")
    store.upsert([photo(1)])
    assert {path for path, _ in synced} == {"_versions", f"_versions/{manifest_name(store.version)}"}


def test_tag_is_synced(store: Store, request: pytest.FixtureRequest) -> None:
    """The file of a tag and its folder are synced, because model cards refer to tags."""
    synced: list[tuple[str, bool]] = request.getfixturevalue("synced")
    store.tag("v1")
    assert {"_refs/tags/v1.json", "_refs/tags"} <= {path for path, _ in synced}


@pytest.mark.parametrize("torn", ["empty", "cut", "zeros"])
def test_torn_manifest_is_removed_on_open(store: Store, torn: str) -> None:
    """After a power cut during a commit the table opens at the version before, and takes the photo again."""
    store.upsert([photo(1)])
    store.upsert([photo(2)])
    assert store.table.root is not None
    manifest = store.table.root / "_versions" / manifest_name(store.version)
    whole = manifest.read_bytes()
    manifest.write_bytes({"empty": b"", "cut": whole[:50], "zeros": bytes(len(whole))}[torn])
    again = Store.open(store.table.url)
    assert again.count() == 1
    assert again.upsert([photo(1), photo(2)]) == {photo(1).photo_id: "duplicate", photo(2).photo_id: "stored"}
    assert again.count() == 2
    assert drop_torn_manifests(store.table.root) == []


def test_lost_transactions_and_a_wrong_hint_are_harmless(store: Store) -> None:
    """Files that are not synced are not needed, not even by a writer that started from an old version."""
    for number in range(3):
        store.upsert([photo(number)])
    assert store.table.root is not None
    for path in (store.table.root / "_transactions").iterdir():
        path.write_bytes(b"")
    (store.table.root / "_versions" / "latest_version_hint.json").write_text('{"version":1}')
    old = lance.dataset(store.table.url, version=2)
    row = lance.dataset(store.table.url).to_table().slice(0, 1)
    merge = old.merge_insert("photo_id").when_not_matched_insert_all().conflict_retries(3)
    assert merge.execute(row)["num_inserted_rows"] == 0
    assert Store.open(store.table.url).count() == 3


def test_writer_lock_is_exclusive_and_times_out(tmp_path: Path) -> None:
    """A second writer waits, then raises TransientError; the lock is free afterwards."""
    with (
        writer_lock(tmp_path),
        pytest.raises(TransientError, match=r"another writer held the writer lock for 0\.05 s"),
        writer_lock(tmp_path, timeout_s=0.05),
    ):
        pass
    with writer_lock(tmp_path, timeout_s=0):
        pass


def test_forked_child_does_not_keep_the_writer_lock(tmp_path: Path) -> None:
    """The lock is released at the end of the block even if a forked child still has the descriptor."""
    reader, writer = os.pipe()
    with writer_lock(tmp_path):
        # A bare fork, as multiprocessing does it. Python and Lance warn of it; this child only waits.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
    try:
        with writer_lock(tmp_path, timeout_s=0):
            pass
    finally:
        os.close(writer)
        os.close(reader)
        os.waitpid(child, 0)


def test_local_root_of_urls() -> None:
    """Paths and file:// URLs have a folder to lock and to sync; object stores have none."""
    assert local_root("a/b") == Path("a/b")
    assert local_root("file:///a%20b") == Path("/a b")
    assert local_root("s3://bucket/a") is None
