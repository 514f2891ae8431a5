"""Rules of cloud/registry/registry.py and rollout_state.py: the models folder."""

import os
from pathlib import Path

import pytest
from msgspec import structs

from cloud.evaluation.promotion_gate import Verdict
from cloud.export.part_lists import write_part_lists
from cloud.registry.registry import CARD_PATH, Registry, RoundRunningError, newest_promoted, read_bundle
from cloud.registry.rollout_state import Rollout, Rules, Step
from cloud.rollout.releases import release_of
from schemas.errors import PermanentError, TransientError
from tests.cloud.bundles import bundle, card

KEPT = Verdict("keep", 2, ["worse"], None, None, None)


def rollout(folder: Path, **changes: object) -> Rollout:
    """Return a rollout of version 3 over version 2."""
    two, three = (release_of(read_bundle(bundle(folder, version)), "edge-1", "pets") for version in (2, 3))
    state = Rollout(
        champion=two, challenger=three, groups=[["edge-1"]], steps=[Step("all")], rules=Rules(), since_ms=1
    )
    return structs.replace(state, **changes)


def test_an_empty_or_missing_folder_has_no_versions(tmp_path: Path) -> None:
    """Reading a registry creates nothing; its first version has the number 1."""
    registry = Registry(tmp_path / "models")
    assert (registry.versions(), registry.cards(), registry.next_version()) == ([], [], 1)
    assert registry.champion() is registry.newest_rollout() is None
    with pytest.raises(PermanentError, match="train one with 'gleaner cloud train'"):
        registry.card()
    assert not registry.folder.exists()


def test_the_next_version_follows_the_highest_number(tmp_path: Path) -> None:
    """By number, not by name; a directory without a card has used its number too."""
    registry = Registry(tmp_path)
    for version in (9, 10):
        registry.write_card(card(version))
    registry.version_dir(11).mkdir()
    registry.bundle_path(12).touch()
    assert (registry.versions(), registry.next_version()) == ([9, 10, 11], 13)
    assert [one.version for one in registry.cards()] == [9, 10]
    assert registry.card().version == 10
    with pytest.raises(PermanentError, match=r"no version 11 in .*; choose one of 9, 10"):
        registry.card(11)


@pytest.mark.parametrize("left", ["4.tar", "rollout-4.json"])
def test_no_number_is_used_again_while_anything_is_left_of_its_version(left: str, tmp_path: Path) -> None:
    """A new version would take the state of the old one's rollout, for example that it was rolled back."""
    (tmp_path / "2").mkdir()
    (tmp_path / left).touch()
    for other in ("new.tar", "rollout-x.json", ".round.log", "40.txt"):
        (tmp_path / other).touch()
    assert Registry(tmp_path).next_version() == 5


def test_a_version_is_new_or_refused(tmp_path: Path) -> None:
    """A number below 1, a number in use, and a models folder that is a file are errors."""
    registry = Registry(tmp_path)
    registry.write_card(card(3))
    registry.check_new(4)
    for version, sentence in ((0, "expected a number of at least 1, got 0"), (3, "version 3 already exists")):
        with pytest.raises(PermanentError, match=sentence):
            registry.check_new(version)
    (tmp_path / "file").touch()
    with pytest.raises(PermanentError, match="is a file; choose another folder"):
        Registry(tmp_path / "file").check_new(1)


def test_the_champion_is_the_newest_promoted_version(tmp_path: Path) -> None:
    """By number; a version that the gate kept back is never champion, and one version can be left out."""
    registry = Registry(tmp_path)
    for version, verdict in ((2, None), (10, None), (11, KEPT)):
        registry.write_card(card(version, verdict))
    champion, before = registry.champion(), registry.champion(without=10)
    assert champion is not None
    assert before is not None
    assert (champion.card.version, champion.directory, before.card.version) == (10, tmp_path / "10", 2)
    assert newest_promoted(registry.cards()) == champion.card


@pytest.mark.parametrize(("phase", "champion"), [("running", 3), ("finished", 3), ("returned", 2)])
def test_a_version_that_was_rolled_back_is_no_champion(tmp_path: Path, phase: str, champion: int) -> None:
    """Its nodes serve the version before it, and the next version has to beat that one."""
    registry = Registry(tmp_path)
    for version in (2, 3):
        registry.write_card(card(version))
    registry.rollout_file(3).write(rollout(tmp_path, phase=phase, announced=True))
    found = registry.champion()
    assert found is not None
    assert found.card.version == champion
    assert registry.card(3).rolled_back == (phase == "returned")


@pytest.mark.parametrize("content", [b"nothing", b"{}", b"\xff"])
def test_an_unreadable_file_is_an_error_that_names_it(content: bytes, tmp_path: Path) -> None:
    """Whether a version was rolled back is not guessed where its card or its rollout state is damaged."""
    registry = Registry(tmp_path)
    registry.write_card(card(3))
    registry.rollout_file(3).path.write_bytes(content)
    with pytest.raises(PermanentError, match=r"cannot read rollout state .*rollout-3.json: "):
        registry.cards()
    registry.rollout_file(3).path.unlink()
    (registry.version_dir(3) / CARD_PATH).write_bytes(content)
    with pytest.raises(PermanentError, match=r"no valid model card in .*model.json: "):
        registry.cards()


def test_the_newest_rollout_is_the_one_written_last(tmp_path: Path) -> None:
    """By the time of its file, not by its version: an older version can be rolled out again."""
    registry = Registry(tmp_path)
    for version, at_s in ((2, 200), (3, 100)):
        registry.rollout_file(version).write(rollout(tmp_path, since_ms=version))
        os.utime(registry.rollout_file(version).path, (at_s, at_s))
    newest = registry.newest_rollout()
    assert newest is not None
    assert newest.since_ms == 2


def test_a_bundle_is_read_with_its_card_digest_and_size(tmp_path: Path) -> None:
    """The bundle of a version, and that of its parent."""
    registry = Registry(tmp_path)
    one, two = Registry.of_bundle(bundle(tmp_path, 1)).bundle(1), read_bundle(bundle(tmp_path, 2))
    assert (one.card.version, len(one.sha256), one.size_bytes) == (1, 64, one.path.stat().st_size)
    child = structs.replace(two.card, parent=1)
    assert registry.parent_bundle(type(two)(two.path, child, two.sha256, two.size_bytes)) == one
    with pytest.raises(PermanentError, match="version 2 has no parent to roll back to"):
        registry.parent_bundle(two)


def test_a_bundle_has_parts_only_with_its_own_lists(tmp_path: Path) -> None:
    """Lists that are missing, damaged or of another bundle are not announced."""
    one, two = bundle(tmp_path, 1), bundle(tmp_path, 2)
    assert read_bundle(one).parts is None  # as a bundle of an earlier release of Gleaner
    for path in (one, two):
        digest = write_part_lists(path, read_bundle(path).sha256)
        assert read_bundle(path).parts == digest == release_of(read_bundle(path), "edge-1", "pets").parts
    lists = [one.with_name("1.tar.parts"), one.with_name("1.tar.parts.parts")]
    for path in lists:
        good = path.read_bytes()
        for wrong in (b"damaged", path.with_name(path.name.replace("1", "2")).read_bytes()):
            path.write_bytes(wrong)
            assert read_bundle(one).parts is None
        path.write_bytes(good)
    assert read_bundle(one).parts is not None


def test_only_one_round_holds_the_lock(tmp_path: Path) -> None:
    """The second one gets a TransientError; when the first has ended, the lock is free."""
    registry = Registry(tmp_path / "models")
    with registry.round_lock() as descriptor:
        assert descriptor > 0
        with (
            pytest.raises(RoundRunningError, match="another training round is running"),
            Registry(tmp_path / "models").round_lock(),
        ):
            pass
    with registry.round_lock():
        pass


def test_an_error_inside_a_lock_is_not_taken_for_a_held_lock(tmp_path: Path) -> None:
    """A block may fail with the same error as a lock that is held; it reaches the caller unchanged."""
    with pytest.raises(TransientError, match=r"^other$"), Registry(tmp_path).rollout_file(3).lock():
        raise TransientError("other")


def test_files_of_a_new_version_can_be_synced(tmp_path: Path) -> None:
    """Bundle and directory under its temporary name are synced without an error or a change."""
    registry = Registry(tmp_path)
    bundle(tmp_path, 3)
    partial = tmp_path / "tmp-3"
    registry.write_card(card(3), partial)
    before = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    registry.sync_files(partial)
    registry.sync_names()
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == before
