import pytest

from edge.models import version_dirs
from edge.models.bundle import BundleError
from tests.serving import pack, release_of, saved_models


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


def test_what_is_brought_touches_no_version(packed, base):
    """Until it is placed, a release lies beside under a name that the server ignores."""
    version_dirs.download(release_of(packed, 3), base)
    assert names(base) == {"1", "2", "incoming-3"}


def test_what_cannot_be_brought_leaves_nothing(packed, base):
    """A bad bundle leaves the folder as it was."""
    with pytest.raises(BundleError):
        version_dirs.download(release_of(packed, 3, classes=["dog", "cat"]), base)
    with pytest.raises(BundleError):
        version_dirs.download(release_of(packed, 2, sha256="0" * 64), base)
    assert names(base) == {"1", "2"}
    assert (base / "2/saved_model.pb").read_text() == "version 2"


def test_going_forward_and_undoing_it(packed, base):
    """A new version stands beside the old ones; displaced, it is gone and they are untouched."""
    version_dirs.download(release_of(packed, 3), base)
    version_dirs.activate(3, base)
    assert names(base) == {"1", "2", "3"}
    version_dirs.rollback(3, base)
    assert names(base) == {"1", "2"}


def test_going_back_keeps_the_newer_until_it_is_settled(packed, base):
    """To serve an older version the newer steps aside, and comes back if the older one fails."""
    version_dirs.download(release_of(packed, 1), base)
    version_dirs.activate(1, base)
    assert names(base) == {"1", "aside-2"}
    version_dirs.rollback(1, base)
    assert names(base) == {"2"}
    version_dirs.download(release_of(packed, 1), base)
    version_dirs.activate(1, base)
    version_dirs.prune(1, base, kept=2)
    assert names(base) == {"1"}


def test_a_trial_that_was_cut_off_is_taken_up(packed, base):
    """After a kill in the middle, the next release finds the newer version back and no rubbish."""
    version_dirs.download(release_of(packed, 1), base)
    version_dirs.activate(1, base)
    (base / "incoming-9").mkdir()
    (base / "incoming-9.tar").write_bytes(b"half")
    version_dirs.download(release_of(packed, 3), base)
    assert names(base) == {"1", "2", "incoming-3"}


def test_the_newest_older_ones_are_kept(base):
    """Settling a version keeps so many in all, the newest; names that are no number are not versions."""
    for number in ("0003", "4", "notes"):
        (base / number).mkdir()
    version_dirs.prune(4, base, kept=2)
    assert names(base) == {"0003", "4", "notes"}


def test_a_trial_lies_beside_the_versions_and_costs_no_room(packed, base):
    """Both versions are in a folder of their own, the champion's files shared; the newest is the champion."""
    version_dirs.download(release_of(packed, 3), base)
    version_dirs.stage_canary(2, 3, base)
    assert names(base) == {"1", "2", "trial"}
    assert version_dirs.newest(base) == 2
    assert version_dirs.canary_versions(base) == {2, 3}
    folder = version_dirs.canary_folder(base)
    assert (folder / "2/saved_model.pb").samefile(base / "2/saved_model.pb")
    assert (folder / "3/saved_model.pb").is_file()


def test_a_version_comes_from_its_trial_into_place_without_leaving_it(packed, base):
    """The server has it in the one folder or the other at any moment; then the trial goes."""
    version_dirs.download(release_of(packed, 3), base)
    version_dirs.stage_canary(2, 3, base)
    version_dirs.restore(3, base)
    version_dirs.activate(3, base)
    assert version_dirs.newest(base) == 3
    assert version_dirs.canary_versions(base) == {2, 3}
    version_dirs.remove_canary(base)
    version_dirs.remove_canary(base)
    assert names(base) == {"1", "2", "3"}
    assert version_dirs.canary_versions(base) == set()


def test_what_a_killed_run_left_of_a_trial_is_no_trial(packed, base):
    """A trial's folder is complete or not there, and leftovers go with the next release."""
    (base / "incoming-trial/2").mkdir(parents=True)
    assert version_dirs.canary_versions(base) == set()
    version_dirs.download(release_of(packed, 3), base)
    assert names(base) == {"1", "2", "incoming-3"}
    version_dirs.stage_canary(2, 3, base)
    assert names(base) == {"1", "2", "trial"}
