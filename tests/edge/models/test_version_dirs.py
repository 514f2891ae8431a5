import pytest

from edge.models import version_dirs
from edge.models.bundle import BundleError
from tests.serving import pack, release_of, saved_models, tar_of


@pytest.fixture
def packed(tmp_path):
    return pack(saved_models() / "straight", tmp_path / "bundle.tar")


@pytest.fixture
def base(tmp_path):
    """A folder that serves version 2 and still has version 1."""
    folder = tmp_path / "pets"
    for number in ("1", "2"):
        (folder / number).mkdir(parents=True)
        (folder / number / "saved_model.pb").write_text(f"version {number}")
    return folder


def names(base) -> set[str]:
    return {path.name for path in base.iterdir()}


def activate(packed, base, version: int, sha256: str | None = "a1") -> None:
    version_dirs.download(release_of(packed, version), base)
    version_dirs.activate(version, base, unproven_sha256=sha256)


def test_download_changes_no_version(packed, base):
    """A fetched release lies under a name that the model server ignores."""
    assert not version_dirs.is_fetched(3, base)
    version_dirs.download(release_of(packed, 3), base)
    assert version_dirs.is_fetched(3, base)
    assert names(base) == {"1", "2", "incoming-3"}


def test_failed_download_leaves_nothing(packed, base):
    """A bad bundle leaves the folder as it was."""
    with pytest.raises(BundleError):
        version_dirs.download(release_of(packed, 3, classes=["dog", "cat"]), base)
    with pytest.raises(BundleError):
        version_dirs.download(release_of(packed, 2, sha256="0" * 64), base)
    assert names(base) == {"1", "2"}
    assert (base / "2/saved_model.pb").read_text() == "version 2"


def test_download_removes_the_leftovers_of_killed_runs(packed, base):
    """Bundles and directories that were fetched in part, or for another release, go."""
    (base / "incoming-9").mkdir()
    (base / "incoming-9.tar").write_bytes(b"half")
    version_dirs.download(release_of(packed, 3), base)
    assert names(base) == {"1", "2", "incoming-3"}


def test_rollback_undoes_activate(packed, base):
    """An activated version is added to the old ones; a rollback removes it and leaves them untouched."""
    activate(packed, base, 3)
    assert names(base) == {"1", "2", "3"}
    version_dirs.rollback(3, base)
    assert names(base) == {"1", "2"}


def test_a_newer_version_steps_aside_until_the_older_one_is_proven(packed, base):
    """The newer version of two comes back by a rollback and is removed by pruning."""
    activate(packed, base, 1)
    assert names(base) == {"1", "aside-2"}
    assert version_dirs.has_leftovers(base)
    version_dirs.rollback(1, base)
    assert names(base) == {"2"}
    activate(packed, base, 1)
    version_dirs.prune(1, base, kept=2)
    assert names(base) == {"1"}


def test_revert_undoes_an_activation_without_verdict(packed, base):
    """The mark with the bundle's digest survives a kill; without a mark nothing is undone."""
    activate(packed, base, 1)
    assert version_dirs.unproven(base) == {(1, "a1")}
    assert version_dirs.revert(base) == {1}
    assert names(base) == {"2"}
    assert version_dirs.unproven(base) == version_dirs.revert(base) == set()


def test_a_proven_version_is_not_reverted(packed, base):
    """Nor does a later rollback return to what had stepped aside for it."""
    activate(packed, base, 1)
    version_dirs.set_proven(1, base)
    assert version_dirs.revert(base) == set()
    activate(packed, base, 3)
    version_dirs.rollback(3, base)
    assert names(base) == {"1"}
    activate(packed, base, 4, sha256=None)
    assert version_dirs.unproven(base) == set()


def test_a_bundle_cannot_bring_the_mark(tmp_path, base):
    """A file of that name in a bundle is removed, so it cannot have its version reverted."""
    root = saved_models() / "straight"
    content = (root / "saved_model.pb").read_bytes()
    bundle = tar_of(tmp_path / "marked.tar", [("saved_model.pb", content), (".unproven", b"x")])
    activate(bundle, base, 3, sha256=None)
    assert version_dirs.unproven(base) == set()


@pytest.mark.parametrize("damage", [b"\xe1\xb1", b"", bytes(64)], ids=["flipped", "empty", "zeros"])
def test_g6_a_damaged_mark_is_that_of_no_bundle(packed, base, damage):
    """G6: with any damage to the mark by a power loss, the version has no verdict and can be reverted."""
    activate(packed, base, 3)
    (base / "3/.unproven").write_bytes(damage)
    assert [version for version, digest in version_dirs.unproven(base) if digest != "a1"] == [3]
    assert version_dirs.revert(base) == {3}


def test_g3_prune_removes_bundles_of_replaced_releases(packed, base):
    """G3: what was fetched, whole or in part, for a release that another one replaced does not stay."""
    version_dirs.download(release_of(packed, 4), base)
    (base / "incoming-3.tar").write_bytes(b"half")
    assert version_dirs.has_leftovers(base)
    version_dirs.prune(2, base, kept=2)
    assert names(base) == {"1", "2"}
    assert not version_dirs.has_leftovers(base)


def test_prune_keeps_the_newest_versions(base):
    """It counts from the one in service downwards; names that are not numbers are not versions."""
    for number in ("0003", "4", "notes"):
        (base / number).mkdir()
    version_dirs.prune(4, base, kept=2)
    assert names(base) == {"0003", "4", "notes"}


def test_canary_folder_holds_both_versions(packed, base):
    """The champion's files are shared with its directory, and the newest version is still the champion."""
    version_dirs.download(release_of(packed, 3), base)
    version_dirs.stage_canary(2, 3, base)
    assert names(base) == {"1", "2", "trial"}
    assert version_dirs.newest(base) == 2
    assert version_dirs.canary_versions(base) == {2, 3}
    folder = version_dirs.canary_folder(base)
    assert (folder / "2/saved_model.pb").samefile(base / "2/saved_model.pb")
    assert (folder / "3/saved_model.pb").is_file()


def test_a_challenger_is_promoted_without_leaving_the_canary_folder(packed, base):
    """The server finds it in one folder or the other at any moment; then the canary folder goes."""
    version_dirs.download(release_of(packed, 3), base)
    version_dirs.stage_canary(2, 3, base)
    version_dirs.restore(3, base)
    version_dirs.activate(3, base, unproven_sha256=None)
    assert version_dirs.newest(base) == 3
    assert version_dirs.canary_versions(base) == {2, 3}
    version_dirs.remove_canary(base)
    version_dirs.remove_canary(base)
    assert names(base) == {"1", "2", "3"}
    assert version_dirs.canary_versions(base) == set()


def test_a_canary_folder_is_complete_or_absent(packed, base):
    """A killed run leaves no canary, only a folder that the next download removes."""
    (base / "incoming-trial/2").mkdir(parents=True)
    assert version_dirs.canary_versions(base) == set()
    version_dirs.download(release_of(packed, 3), base)
    assert names(base) == {"1", "2", "incoming-3"}
    version_dirs.stage_canary(2, 3, base)
    assert names(base) == {"1", "2", "trial"}
