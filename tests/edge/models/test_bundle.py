import tarfile

import pytest

from edge.models.bundle import BundleError, check, read_class_names, unpack
from edge.models.transfer.whole_bundle import fetch
from tests.serving import CLASSES, pack, release_of, saved_models, tar_of


@pytest.fixture
def packed(tmp_path):
    return pack(saved_models() / "straight", tmp_path / "bundle.tar")


def test_a_good_bundle_is_unpacked_unchanged(packed, tmp_path):
    """Fetched, unpacked and checked, it is the folder that was packed."""
    release = release_of(packed, 2)
    fetch(release, tmp_path / "copy.tar")
    unpack(tmp_path / "copy.tar", tmp_path / "model", most_bytes=release.size_bytes)
    check(tmp_path / "model", release)
    original = saved_models() / "straight"
    for path in original.rglob("*"):
        placed = tmp_path / "model" / path.relative_to(original)
        assert placed.is_dir() if path.is_dir() else placed.read_bytes() == path.read_bytes()
    assert read_class_names(tmp_path / "model") == CLASSES


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


HOSTILE = {
    "up": [("../escaped", b"x")],
    "up inside": [("a/../../escaped", b"x")],
    "absolute": [("/tmp/escaped", b"x")],
    "symbolic link": [(member("link", tarfile.SYMTYPE, "/etc"), b""), ("link/escaped", b"x")],
    "hard link": [(member("link", tarfile.LNKTYPE, "/etc/passwd"), b"")],
    "device file": [(member("null", tarfile.CHRTYPE), b"")],
    "fifo": [(member("pipe", tarfile.FIFOTYPE), b"")],
    "file over folder": [("a/b", b"x"), ("a", b"x")],
    "file as folder": [("a", b"x"), ("a/b", b"x")],
    "no name": [(".", b"x")],
    "long name": [("x" * 300, b"x")],
    "no UTF-8": [("caf\udce9", b"x")],
    "null in name": [("a\0b/../c", b"x"), ("a", b"y"), ("a/b", b"z")],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_nothing_but_plain_files_below_the_root_is_unpacked(tmp_path, members):
    """A link, a device, a path outside the root or two members with one name make the bundle bad."""
    archive = tar_of(tmp_path / "hostile.tar", members)
    with pytest.raises(BundleError):
        unpack(archive, tmp_path / "below/model", most_bytes=1000)
    assert not list(tmp_path.rglob("escaped"))
    assert not (tmp_path.parent / "escaped").exists()


def header(size_bytes: int, name: str = "liar") -> bytes:
    """Return a tar header that claims a size."""
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "content",
    [
        header(2**60),
        header(-1024),
        header(900) + b"x" * 300,
        b"no tar at all" * 100,
        b"",
        b"".join(header(0, f"f{number}") for number in range(10_001)) + bytes(1024),
    ],
    ids=["vast", "negative", "truncated", "text", "empty", "very many"],
)
def test_a_malformed_archive_is_refused(tmp_path, content):
    """A size that is false, negative or more than released, or too many files."""
    (tmp_path / "liar.tar").write_bytes(content)
    with pytest.raises(BundleError):
        unpack(tmp_path / "liar.tar", tmp_path / "model", most_bytes=1000)


def test_a_sparse_file_cannot_exceed_the_released_size(tmp_path):
    """A small member that expands to a huge file counts with its expanded size."""
    info = tarfile.TarInfo("hole")
    info.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.map": "0,1",
        "GNU.sparse.size": str(2**40),
    }
    with pytest.raises(BundleError, match="no more than the released size"):
        unpack(tar_of(tmp_path / "sparse.tar", [(info, b"x")]), tmp_path / "model", most_bytes=10_000)


def test_a_folder_that_is_not_the_released_model_is_refused(packed, tmp_path):
    """It has no SavedModel, or its own class names differ from the released ones."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match=r"saved_model\.pb"):
        check(tmp_path / "empty", release_of(packed, 2))
    with pytest.raises(BundleError, match="classes"):
        check(saved_models() / "straight", release_of(packed, 2, classes=["dog", "cat"]))


def test_a_model_without_class_names_takes_those_of_its_release(packed, tmp_path):
    """The asset with class names is optional."""
    (tmp_path / "saved_model.pb").write_bytes(b"")
    assert read_class_names(tmp_path) is None
    check(tmp_path, release_of(packed, 2))
