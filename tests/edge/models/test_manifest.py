"""What is wrong with a placed version is found: each file, each kind of damage (guarantee G6)."""

import os

import pytest

from edge.models import manifest, version_dirs
from tests.serving import pack, release_of, saved_models

VARIABLES = "variables/variables.data-00000-of-00001"


@pytest.fixture
def placed(tmp_path):
    """A version that was fetched and activated."""
    base = tmp_path / "pets"
    packed = pack(saved_models() / "straight", tmp_path / "bundle.tar")
    version_dirs.download(release_of(packed, 2), base)
    version_dirs.activate(2, base, unproven_sha256=None)
    return base / "2"


def empty(path) -> None:
    path.write_bytes(b"")


def flip(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def folder(path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = {
    "emptied": empty,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "flipped": flip,
    "gone": lambda path: path.unlink(),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a-folder": folder,
}


def test_an_intact_version_has_no_damage(placed):
    """A placed version is intact, also with the marks that are added later."""
    (placed / ".unproven").write_text("x")
    assert (placed / manifest.NAME).is_file()
    assert manifest.Verifier().damage(placed) is None


@pytest.mark.parametrize("name", ["saved_model.pb", "assets/classes.txt", manifest.NAME])
@pytest.mark.parametrize("damage", DAMAGES)
def test_g6_a_damaged_file_is_found(placed, damage, name):
    """G6: a file that was emptied, cut, flipped or lost is found by a process that starts."""
    DAMAGES[damage](placed / name)
    expected = None if (damage, name) == ("gone", manifest.NAME) else name.removeprefix(".")
    found = manifest.Verifier().damage(placed)
    assert (found is None) if expected is None else expected in found


def test_a_size_is_compared_each_time(placed):
    """A file that is emptied while the process runs is found; its digest is computed once."""
    verifier = manifest.Verifier()
    assert verifier.damage(placed) is None
    empty(placed / "saved_model.pb")
    assert "0 instead of" in verifier.damage(placed)


def test_a_version_without_a_manifest_is_not_judged(tmp_path):
    """Versions that others placed, or earlier versions of the edge, have no manifest."""
    (tmp_path / "1").mkdir()
    assert manifest.Verifier().damage(tmp_path / "1") is None
    assert manifest.Verifier().damage(tmp_path / "2") is None


def test_g6_a_version_that_was_fetched_again_gets_its_own_verdict(placed):
    """G6: many file systems give the inode of the removed manifest to the new one of the same version."""
    verifier, path = manifest.Verifier(), placed / manifest.NAME
    content = (placed / VARIABLES).read_bytes()
    flip(placed / VARIABLES)
    assert verifier.damage(placed) is not None
    (placed / VARIABLES).write_bytes(content)
    encoded, status = path.read_bytes(), path.stat()
    path.write_bytes(encoded)  # in place: the inode stays, as it may after a removal
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert path.stat().st_ino == status.st_ino
    assert verifier.damage(placed) is None
    flip(placed / VARIABLES)
    assert verifier.damage(placed) is None, "the digests are compared once for each placement"
