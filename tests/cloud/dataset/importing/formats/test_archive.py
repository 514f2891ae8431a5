"""Rules of cloud/dataset/importing/formats/archive.py: archives are imported like folders, safely."""

import _compression
import bz2
import gzip
import io
import json
import lzma
import random
import stat
import struct
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from cloud.dataset.importing.entry import Entry, Item, PassedOver
from cloud.dataset.importing.formats import archive, archive_formats
from cloud.dataset.importing.formats.source import SourceOptions, source_entries
from schemas.errors import PermanentError

Files = Mapping[str, bytes]


def jpeg(seed: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (32, 24), (seed % 256, 40, 200)).save(out, "JPEG")
    return out.getvalue()


CATS: Files = {"cat/1.jpg": jpeg(1), "cat/2.jpg": jpeg(2), "dog/1.jpg": jpeg(3)}
CAT_DOG = {"cat/1.jpg": "cat", "cat/2.jpg": "cat", "dog/1.jpg": "dog"}


def zipped(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, time.localtime(1_700_000_000)[:6])
            info.compress_type = zipfile.ZIP_DEFLATED
            made.writestr(info, content)
    return path


def tarred(path: Path, files: Files, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as made:  # type: ignore[call-overload]  # of any compression
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1_700_000_000
            made.addfile(info, io.BytesIO(content))
    return path


def listed(path: Path | str, **options: object) -> list[Entry]:
    with source_entries(str(path), SourceOptions(**options)) as entries:  # type: ignore[arg-type]
        return entries


def labels(path: Path | str, **options: object) -> dict[str, str | None]:
    """Return the labels by name, after reading every picture."""
    with source_entries(str(path), SourceOptions(**options)) as entries:  # type: ignore[arg-type]
        items = [entry for entry in entries if isinstance(entry, Item)]
        assert all(item.read().startswith(b"\xff\xd8") for item in items)
        return {item.name: item.label for item in items}


def reasons(entries: list[Entry]) -> dict[str, str]:
    return {entry.name: entry.reason for entry in entries if isinstance(entry, PassedOver)}


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("x.zip", zipped),
        ("X.ZIP", zipped),
        ("x.tar", tarred),
        ("x.tar.gz", lambda path, files: tarred(path, files, "w:gz")),
        ("x.tgz", lambda path, files: tarred(path, files, "w:gz")),
        ("x.tar.bz2", lambda path, files: tarred(path, files, "w:bz2")),
        ("x.tar.xz", lambda path, files: tarred(path, files, "w:xz")),
        ("x.zip", tarred),  # the content decides, not the name
        ("x.tar", zipped),
    ],
)
def test_an_archive_is_imported_as_its_folder(
    tmp_path: Path, name: str, make: Callable[[Path, Files], Path]
) -> None:
    """Classes, names, sizes and dates are those of the members."""
    path = make(tmp_path / name, CATS)
    assert labels(path) == CAT_DOG
    items = [entry for entry in listed(path) if isinstance(entry, Item)]
    assert {item.name: item.size_bytes for item in items} == {
        name: len(content) for name, content in CATS.items()
    }
    assert {item.at_ms for item in items} == {1_700_000_000_000}


EXPORTS: dict[str, tuple[Files, dict[str, str]]] = {
    "Label Studio, COCO with pictures": (
        {
            "result.json": json.dumps(
                {
                    "images": [{"id": 0, "file_name": "images/0a-1.jpg"}],
                    "categories": [{"id": 3, "name": "cat"}],
                    "annotations": [{"image_id": 0, "category_id": 3}],
                }
            ).encode(),
            "images/0a-1.jpg": jpeg(1),
            "notes.json": b'{"categories": []}',
        },
        {"images/0a-1.jpg": "cat"},
    ),
    "CVAT for images": (
        {
            "annotations.xml": b'<annotations><image name="1.jpg"><tag label="cat"/></image></annotations>',
            "images/1.jpg": jpeg(1),
        },
        {"1.jpg": "cat"},
    ),
    "Roboflow, COCO": (
        {
            "README.roboflow.txt": b"Exported by Roboflow",
            **{
                f"{split}/_annotations.coco.json": json.dumps(
                    {
                        "images": [{"id": 0, "file_name": f"{split}.jpg"}],
                        "categories": [{"id": 1, "name": "cat"}],
                        "annotations": [{"image_id": 0, "category_id": 1}],
                    }
                ).encode()
                for split in ("train", "valid")
            },
            "train/train.jpg": jpeg(1),
            "valid/valid.jpg": jpeg(2),
        },
        {"train/train.jpg": "cat", "valid/valid.jpg": "cat"},
    ),
    "Kaggle, with a folder around it": (
        {"PetImages/Cat/0.jpg": jpeg(1), "PetImages/Dog/0.jpg": jpeg(2), "readme[1].txt": b"-"},
        {"Cat/0.jpg": "Cat", "Dog/0.jpg": "Dog"},
    ),
    "Kaggle, classes in the names": (
        {"train/cat.0.jpg": jpeg(1), "train/dog.0.jpg": jpeg(2)},
        {"train/cat.0.jpg": "cat", "train/dog.0.jpg": "dog"},
    ),
    "macOS": (
        {"pets/cat/1.jpg": jpeg(1), "__MACOSX/pets/cat/._1.jpg": b"-", "pets/.DS_Store": b"-"},
        {"cat/1.jpg": "cat"},
    ),
    "a CSV next to a folder of pictures": (
        {"set/labels.csv": b"file,label\n1.jpg,cat\n", "set/1.jpg": jpeg(1)},
        {"1.jpg": "cat"},
    ),
    "pictures without suffixes": ({"cat/1": jpeg(1), "cat/2": b"text"}, {"cat/1": "cat"}),
}


@pytest.mark.parametrize("export", EXPORTS)
@pytest.mark.parametrize("make", [zipped, tarred])
def test_exports_of_tools_are_read_as_they_are(
    tmp_path: Path, make: Callable[[Path, Files], Path], export: str
) -> None:
    """Lists in the archive name the pictures in it; one folder around everything changes nothing."""
    files, expected = EXPORTS[export]
    assert labels(make(tmp_path / "x.zip", files)) == expected


def test_a_folder_or_list_in_an_archive_can_be_named(tmp_path: Path) -> None:
    """As an error about the whole archive proposes: its names are those of the archive."""
    files = {"a/cat/1.jpg": jpeg(1), "a/dog/1.jpg": jpeg(2), "b/cat/1.jpg": jpeg(3), "b/dog/1.jpg": jpeg(4)}
    path = zipped(tmp_path / "x.zip", files)
    with pytest.raises(PermanentError, match=r"deeper; import \S*x\.zip/a, \S*x\.zip/b"):
        listed(path)
    assert labels(path / "a") == {"cat/1.jpg": "cat", "dog/1.jpg": "dog"}
    with pytest.raises(PermanentError, match=r"x\.zip has no folder or file c"):
        listed(path / "c")
    assert labels(zipped(tmp_path / "y.zip", {"1.jpg": jpeg(1)}), label="cat") == {"1.jpg": "cat"}
    assert labels(zipped(tmp_path / "z.zip", {"all/1.jpg": jpeg(1)}), label="cat") == {"1.jpg": "cat"}


def test_nothing_outside_is_read_or_written(tmp_path: Path) -> None:
    """Neither by the path of a member nor by a list: every such picture is skipped with the reason."""
    (tmp_path / "mine.jpg").write_bytes(jpeg(9))
    rows = f"file,label\n{tmp_path}/mine.jpg,cat\n../../mine.jpg,cat\nfile://{tmp_path}/mine.jpg,cat\n1.jpg,cat\n"
    files = {
        "labels.csv": rows.encode(),
        "1.jpg": jpeg(1),
        "../evil.jpg": jpeg(2),
        f"{tmp_path}/evil.jpg": jpeg(3),
    }
    for make in (zipped, tarred):
        found = listed(make(tmp_path / "x.zip", files))
        assert [entry.name for entry in found if isinstance(entry, Item)] == ["1.jpg"]
        said = reasons(found)
        assert said["../evil.jpg"] == said[f"{tmp_path}/evil.jpg"] == "its path leads out of the archive"
        assert said[f"{tmp_path}/mine.jpg"] == said[f"file://{tmp_path}/mine.jpg"] == "not in the archive"
    assert not list(tmp_path.parent.rglob("evil.jpg"))


def test_links_and_devices_are_passed_over(tmp_path: Path) -> None:
    """A link would lead anywhere, a device could be read without end."""
    path = tarred(tmp_path / "x.tar", CATS)
    with tarfile.open(path, "a") as made:
        for name, kind in (
            ("s", tarfile.SYMTYPE),
            ("h", tarfile.LNKTYPE),
            ("d", tarfile.CHRTYPE),
            ("f", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(f"cat/{name}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            made.addfile(info)
    said = reasons(listed(path))
    assert said == {
        "cat/s.jpg": "a link",
        "cat/h.jpg": "a link",
        "cat/d.jpg": "not a file",
        "cat/f.jpg": "not a file",
    }
    path = zipped(tmp_path / "x.zip", CATS)
    with zipfile.ZipFile(path, "a") as made_zip:
        info_zip = zipfile.ZipInfo("cat/s.jpg")
        info_zip.external_attr = (stat.S_IFLNK | 0o777) << 16
        made_zip.writestr(info_zip, "/etc/passwd")
    assert reasons(listed(path)) == {"cat/s.jpg": "a link"}
    assert labels(path) == CAT_DOG


def test_members_that_cannot_be_read_cost_themselves(tmp_path: Path) -> None:
    """Encrypted, of another compression, damaged, doubled, or with a name that no file can have."""
    path = zipped(
        tmp_path / "x.zip",
        CATS | {"cat/3.jpg": jpeg(4), f"cat/{'x' * 300}.jpg": jpeg(5), "cat/1.jpg/2.jpg": jpeg(6)},
    )
    with zipfile.ZipFile(path, "a", zipfile.ZIP_LZMA) as made:
        made.writestr("cat/4.jpg", jpeg(7))
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02", 0, content.rindex(b"cat/3.jpg"))
    content[at + 8] |= 1  # of the directory: encrypted
    path.write_bytes(content)
    said = reasons(listed(path))
    assert said["cat/3.jpg"] == "encrypted; unpack it with its password"
    assert "compressed by method 14 of zip" in said["cat/4.jpg"]
    assert said["cat/1.jpg/2.jpg"] == "a file and a folder of the archive have this name"
    assert "no file can have this name" in said[f"cat/{'x' * 300}.jpg"]
    assert labels(path) == CAT_DOG


def test_a_damaged_picture_costs_itself(tmp_path: Path) -> None:
    """Its checksum does not fit; the others are imported."""
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as made:
        for name, picture in CATS.items():
            made.writestr(name, picture)
    content = bytearray(path.read_bytes())
    content[content.index(CATS["cat/2.jpg"]) + 100] ^= 1
    path.write_bytes(content)
    with source_entries(str(path), SourceOptions()) as entries:
        items = {entry.name: entry for entry in entries if isinstance(entry, Item)}
        assert items["dog/1.jpg"].read() == CATS["dog/1.jpg"]
        with pytest.raises(PermanentError, match=r"x\.zip: Bad CRC-32 .* copy it again"):
            items["cat/2.jpg"].read()


def test_a_damaged_list_is_not_read_in_part(tmp_path: Path) -> None:
    """Half a list would be an import without errors, of half the pictures."""
    rows = b"file,label\n" + b"".join(b"%d.jpg,cat\n" % number for number in range(100))
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("labels.csv", rows)
        made.writestr("cat/1.jpg", jpeg(1))
    content = bytearray(path.read_bytes())
    content[content.index(rows) + 500] ^= 1
    path.write_bytes(content)
    found = listed(path)
    assert "Bad CRC-32" in reasons(found)["labels.csv"]
    assert [entry.name for entry in found if isinstance(entry, Item)] == ["cat/1.jpg"]


def bomb(path: Path) -> Path:
    """A gigabyte of zeros in a megabyte."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made, made.open("cat/1.jpg", "w") as file:
        for _ in range(256):
            file.write(bytes(1 << 18))
    return path


def overlapping(path: Path) -> Path:
    """A thousand members that all are the same compressed bytes."""
    zipped(path, {"cat/0.jpg": bytes(1 << 20)})
    content = path.read_bytes()
    at = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    entry = content[at:end]
    names = [b"cat/%06d.jpg" % number for number in range(1000)]
    directory = b"".join(entry[:28] + struct.pack("<H", len(name)) + entry[30:46] + name for name in names)
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1000, 1000, len(directory), at, 0)
    path.write_bytes(content[:at] + directory + tail)
    return path


def huge_header(path: Path) -> Path:
    """A header of tar that claims a path of a gigabyte."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.write(bytes(64 << 20))
    return path


def backwards(path: Path) -> Path:
    """A member of a negative size, after which the first header is read again."""
    info = tarfile.TarInfo("cat/1.jpg")
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" * 10 + struct.pack(">h", -1024)
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    path.write_bytes(tarfile.TarInfo("cat/0.jpg").tobuf(tarfile.GNU_FORMAT) + block + bytes(1024))
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (bomb, "holds more than 10 times its own size; if you trust it, unpack it"),
        (overlapping, "holds more than 10 times its own size"),
        (huge_header, "a header has more than 4194304 bytes"),
        (backwards, "a header leads back"),
        (lambda path: zipped(path, {f"{number}/1.jpg": b"" for number in range(101)}), "more than 100 files"),
        (lambda path: tarred(path, {f"{number}/1.jpg": b"" for number in range(101)}), "more than 100 files"),
        (lambda path: zipped(path, {f"{n}/{n}/{n}/1.jpg": b"" for n in range(50)}), "more than 100 folders"),
    ],
)
def test_a_bomb_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Path], said: str
) -> None:
    """Too many members, or far more bytes than the archive has; in little memory."""
    monkeypatch.setattr(archive_formats, "MAX_MEMBERS", 100)
    monkeypatch.setattr(archive, "MAX_MEMBERS", 100)
    monkeypatch.setattr(archive_formats, "MAX_RATIO", 10)
    monkeypatch.setattr(archive_formats, "_SLACK_BYTES", 1 << 20)
    path = make(tmp_path / "x.zip")
    tracemalloc.start()
    with pytest.raises(PermanentError, match=said):
        listed(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 << 20


def test_a_member_gives_no_more_than_it_says(tmp_path: Path) -> None:
    """A size that is too small in the directory: the checksum of the rest does not fit."""
    path = zipped(tmp_path / "x.zip", {"cat/1.jpg": bytes(1 << 20)})
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<L", 10)
    path.write_bytes(content)
    with source_entries(str(path), SourceOptions()) as (entry,):
        assert isinstance(entry, Item)
        with pytest.raises(PermanentError, match="Bad CRC-32"):
            entry.read()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", "it is neither a zip nor a tar file"),
        (b"", "it is neither a zip nor a tar file"),
        (b"PK\x03\x04 cut off", "File is not a zip file; if it is damaged or cut off, copy it again"),
        (gzip.compress(b"no tar file"), "it is neither a zip nor a tar file"),
        (gzip.compress(b"no tar file")[:-9], "cannot read the archive"),
        (bz2.compress(b"no tar file"), "it is neither a zip nor a tar file"),
        (lzma.compress(b"x")[:20], "cannot read the archive"),
    ],
)
def test_what_is_no_archive_is_a_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    """An error page that was saved, an empty file, a download that was cut off."""
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    with pytest.raises(PermanentError, match=said):
        listed(path)


def test_archives_of_other_kinds_say_what_to_do(tmp_path: Path) -> None:
    """7z and rar are not read; one inside a folder or an archive is pointed out; one in a network too."""
    (tmp_path / "x.7z").write_bytes(b"7z")
    with pytest.raises(PermanentError, match=r"x\.7z is an archive of a kind that is not read; unpack it"):
        listed(tmp_path / "x.7z")
    inner = zipped(tmp_path / "inner.zip", CATS).read_bytes()
    outer = zipped(tmp_path / "outer.zip", {"train.zip": inner, "sample.csv": b"id,label\n1,0\n"})
    with pytest.raises(PermanentError, match=r"outer\.zip: .*\(train\.zip: an archive; unpack it, or"):
        listed(outer)
    with pytest.raises(PermanentError, match=r"train\.zip is an archive inside another one; unpack that"):
        listed(outer / "train.zip")
    with pytest.raises(PermanentError, match=r"x\.zip\?token=\*\*\* is an archive; download it"):
        listed("https://example.org/x.zip?token=1")


def named(
    path: Path, names: Mapping[bytes, bytes], *, system: int = 3, texts: Mapping[bytes, str] = {}
) -> Path:
    """Write a zip file whose names are raw bytes without the flag of UTF-8, and Info-ZIP's field for some."""
    marks = {raw: f"{number}".ljust(len(raw), "~").encode() for number, raw in enumerate(names)}
    with zipfile.ZipFile(path, "w") as made:
        for raw, content in names.items():
            info = zipfile.ZipInfo(marks[raw].decode())
            info.create_system = system
            if raw in texts:
                field = struct.pack("<BL", 1, zlib.crc32(raw)) + texts[raw].encode()
                info.extra = (
                    struct.pack("<HH", 0x5455, 1) + b"0" + struct.pack("<HH", 0x7075, len(field)) + field
                )
            made.writestr(info, content)
    content = path.read_bytes()
    for raw, mark in marks.items():
        for before in (b"PK\x03\x04", b"PK\x01\x02"):
            content = b"".join(_renamed(content, before, mark, raw))
    path.write_bytes(content)
    return path


def _renamed(content: bytes, before: bytes, mark: bytes, raw: bytes) -> list[bytes]:
    first, *entries = content.split(before)
    at = {b"PK\x03\x04": 26, b"PK\x01\x02": 42}[before]
    return [
        first,
        *(
            before + (one[:at] + raw + one[at + len(raw) :] if one[at : at + len(mark)] == mark else one)
            for one in entries
        ),
    ]


def test_names_are_read_as_their_system_wrote_them(tmp_path: Path) -> None:
    """UTF-8 with the flag, without it (macOS), and with backslashes (Windows)."""
    path = zipped(tmp_path / "x.zip", {"caf\xe9/3.jpg": jpeg(3)})
    assert set(labels(path).values()) == {"caf\xe9"}
    path = named(
        tmp_path / "y.zip",
        {"K\xe4fer/1.jpg".encode(): jpeg(1), "Stra\xdfe\\2.jpg".encode(): jpeg(2)},
        system=0,
    )
    assert set(labels(path).values()) == {"K\xe4fer", "Stra\xdfe"}


@pytest.mark.parametrize(
    ("encoding", "classes"),
    [
        ("gbk", ("\u732b", "\u5f55")),  # the second one alone would be valid UTF-8
        ("cp950", ("\u8c93", "\u72d7")),
        ("cp932", ("\u732b", "\u8868")),  # the second one ends in a backslash
        ("cp949", ("\uace0\uc591\uc774", "\uac1c")),
        ("cp850", ("K\xe4fer", "Ha\xdf")),
        ("cp1251", ("\u043a\u043e\u0442", "\u043f\u0451\u0441")),
    ],
)
@pytest.mark.parametrize("system", [0, 3])
def test_class_names_in_an_unknown_encoding_are_asked_for(
    tmp_path: Path, encoding: str, classes: tuple[str, str], system: int
) -> None:
    """A guess would be a wrong class; the sentence shows what the name would be, and no photo is lost."""
    raw = {f"{name}/{number}.jpg".encode(encoding): jpeg(number) for number, name in enumerate(classes)}
    path = named(tmp_path / "x.zip", raw, system=system)
    with pytest.raises(
        PermanentError, match="not say in which encoding its names are; say it with --name-e"
    ) as told:
        listed(path)
    assert f"'{classes[0]}' in {encoding}" in str(told.value)
    assert set(labels(path, name_encoding=encoding).values()) == set(classes)
    assert list(labels(path, label="pet", recursive=True).values()) == ["pet"] * len(raw)


@pytest.mark.parametrize("made", ["latin-1", "gbk"])
def test_names_of_tar_files_are_asked_for_too(tmp_path: Path, made: str) -> None:
    """Old ones have bytes as names; those that say UTF-8 are read as that whatever was asked for."""
    name = "\xe9t\xe9" if made == "latin-1" else "\u732b"
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding=made) as out:
        info = tarfile.TarInfo(f"{name}/1.jpg")
        info.size = len(jpeg(1))
        out.addfile(info, io.BytesIO(jpeg(1)))
    with pytest.raises(PermanentError, match="not say in which encoding its names are"):
        listed(path)
    assert set(labels(path, name_encoding=made).values()) == {name}
    stated = tarred(tmp_path / "y.tar", {"\xe9t\xe9/1.jpg": jpeg(1)})
    assert set(labels(stated, name_encoding="gbk").values()) == {"\xe9t\xe9"}


def test_unicode_paths_beside_the_names_are_used(tmp_path: Path) -> None:
    """Info-ZIP's field counts if it is of this name; a field that another program left behind does not."""
    raw = "\u732b/1.jpg".encode("gbk")
    path = named(tmp_path / "x.zip", {raw: jpeg(1)}, texts={raw: "\u732b/1.jpg"})
    assert set(labels(path).values()) == {"\u732b"}
    path.write_bytes(path.read_bytes().replace(struct.pack("<L", zlib.crc32(raw)), b"abcd"))
    with pytest.raises(PermanentError, match="'\u732b' in gbk"):
        listed(path)


def test_file_names_in_an_unknown_encoding_matter_only_to_lists(tmp_path: Path) -> None:
    """Photos are imported under the names of their folders; a list that names them needs the encoding."""
    photo = "\u732b.jpg".encode("gbk")
    path = named(tmp_path / "x.zip", {b"cat/" + photo: jpeg(1), b"dog/2.jpg": jpeg(2)})
    assert sorted(labels(path).values()) == ["cat", "dog"]  # type: ignore[type-var]  # all have one
    table = "file,label\n\u732b.jpg,cat\n".encode()
    path = named(tmp_path / "y.zip", {photo: jpeg(1), b"list.csv": table})
    with pytest.raises(PermanentError, match=r"'\u732b\.jpg' in gbk"):
        listed(path)
    assert set(labels(path, name_encoding="gbk").values()) == {"cat"}


def test_a_compressed_tar_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are read in the archive's order, not by name: going back would decompress it again."""
    files = {f"cat/{number}.jpg": jpeg(number) for number in reversed(range(20))}
    backward = []
    rewind = _compression.DecompressReader._rewind  # type: ignore[attr-defined]

    def noted(self: _compression.DecompressReader) -> None:
        backward.append(self)
        rewind(self)

    path = tarred(tmp_path / "x.tgz", files, "w:gz")
    monkeypatch.setattr(_compression.DecompressReader, "_rewind", noted)
    with source_entries(str(path), SourceOptions()) as entries:
        backward.clear()
        for entry in entries:
            assert isinstance(entry, Item)
            entry.read()
    assert len(backward) <= 1


def test_placeholders_have_no_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are not unpacked; without space for the lists, the error suggests what to do."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    path = zipped(tmp_path / "x.zip", CATS | {"notes.json": b"{}"})
    with source_entries(str(path), SourceOptions()):
        sizes = {one.name: one.stat().st_size for one in (tmp_path / "scratch").rglob("*") if one.is_file()}
    assert sizes == {"1.jpg": 0, "2.jpg": 0, "notes.json": 2}
    assert not list((tmp_path / "scratch").iterdir())
    monkeypatch.setattr(archive, "_KEPT_FREE_BYTES", 1 << 60)
    with pytest.raises(PermanentError, match=r"no space for the lists of .*x\.zip in .*scratch; set TMPDIR"):
        listed(path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(PermanentError, match=r"cannot make a temporary folder: .*; set TMPDIR"):
        listed(path)


def mutated(content: bytes, seed: int) -> bytes:
    """Return bytes of which some are changed, missing or doubled."""
    chance, changed = random.Random(seed), bytearray(content)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed))
        match chance.randrange(4):
            case 0:
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                changed[at : at + 4] = chance.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f"])
            case 2:
                changed[at : at + chance.randint(1, 600)] = changed[: chance.randint(0, 600)]
            case _:
                del changed[max(1, at) :]
    return bytes(changed)


@pytest.mark.parametrize("make", [zipped, tarred, lambda path, files: tarred(path, files, "w:gz")])
def test_damaged_archives_are_sentences(tmp_path: Path, make: Callable[[Path, Files], Path]) -> None:
    """Any changed or missing bytes give pictures, reasons or one error message, never a traceback."""
    path = make(tmp_path / "x.zip", CATS | {"labels.txt": b"no list", "notes.json": b"{}"})
    original = path.read_bytes()
    for seed in range(60):
        path.write_bytes(mutated(original, seed))
        with suppress(PermanentError), source_entries(str(path), SourceOptions()) as entries:
            for entry in entries:
                if isinstance(entry, Item):
                    with suppress(PermanentError):
                        entry.read()


def misnamed(path: Path, files: Files, *names: str) -> Path:
    """Write a zip file in which a letter of some names, é, is the byte of Latin-1 under the flag of UTF-8."""
    content = zipped(path, files).read_bytes()
    for name in names:
        text = name.encode()
        assert content.count(text) == 2  # before the member, and in the directory
        content = content.replace(text, text.replace("é".encode(), b"\xe9x"))
    path.write_bytes(content)
    return path


def test_a_name_that_is_not_the_utf_8_it_says_costs_that_file_alone(tmp_path: Path) -> None:
    """It is listed with the reason; with its encoding named it is imported. The others need no word."""
    files = CATS | {"cat/café.jpg": jpeg(4), "dog/née.jpg": jpeg(5), "chat/été.jpg": jpeg(6)}
    path = misnamed(tmp_path / "x.zip", files, "cat/café.jpg", "dog/née.jpg")
    assert labels(path) == CAT_DOG | {"chat/été.jpg": "chat"}
    said = reasons(listed(path))
    assert said.keys() == {r"cat/caf\xe9x.jpg", r"dog/n\xe9xe.jpg"}
    assert all("not UTF-8, although the archive says so" in reason for reason in said.values())
    named = labels(path, name_encoding="latin-1")
    assert named == CAT_DOG | {"chat/été.jpg": "chat", "cat/caféx.jpg": "cat", "dog/néxe.jpg": "dog"}


def test_what_looks_like_a_directory_in_a_member_is_its_content(tmp_path: Path) -> None:
    """Only the directory of the archive itself is read with other flags."""
    entry = b"PK\x01\x02" + bytes([20, 0, 20, 0, 0, 8]) + bytes(18) + b"\x01\x00" + bytes(16) + b"\xe9"
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a/1.jpg", entry)
    with source_entries(str(path), SourceOptions()) as entries:
        assert [entry.read() for entry in entries if isinstance(entry, Item)] == [entry]
