"""Read the names in zip and tar files, which often do not say in which encoding they are."""

import codecs
import struct
import zipfile
import zlib
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import PurePosixPath
from typing import NamedTuple
from unicodedata import name

UTF_8_NAME = 0x800
_BY_WINDOWS = 0
_UNICODE_PATH = 0x7075
_UNICODE_PATH_VERSION = 1
_ZIP_ENCODING = "cp437"
_TWO_BYTES_OF_UTF_8 = "\u07ff"
_LIKELY = ("cp932", "gbk", "cp950", "cp949", "cp1252", "cp850", "cp1251", "cp866")
"""Code pages of Windows and older tools, also of Japanese, Chinese and Korean ones."""


class Name(NamedTuple):
    """The path of a member.

    Attributes:
        text: With slashes.
        raw: As it is written, if its encoding is not known; None if it is.
    """

    text: str
    raw: bytes | None = None


def is_encoding(encoding: str) -> bool:
    """Return whether names can be in an encoding: one of text that has ASCII, with its slashes, as it is."""
    try:
        return b"a/b.jpg".decode(encoding) == "a/b.jpg"
    except (LookupError, UnicodeError, ValueError):  # ValueError: NUL in the name
        return False


def zip_names(
    members: Sequence[zipfile.ZipInfo], encoding: str | None, misnamed: Container[int] = ()
) -> Iterator[Name]:
    """Yield the names of a zip file's members.

    What does not say its encoding is UTF-8 (macOS) if all such names of the file are words in that.

    Args:
        members: All of them.
        encoding: Of the names that do not say theirs; None if it is not known.
        misnamed: Positions of names that say UTF-8 and are not; `raw` of a Name is them without an encoding.
    """
    unstated = [_unstated(info) for info in members]
    all_utf_8 = all(_is_utf_8(raw) for at, raw in enumerate(unstated) if raw and at not in misnamed)
    for info, raw in zip(members, unstated, strict=True):
        if raw is None:
            read = Name(_stated_text(info))
        else:
            read = _name(raw, info.orig_filename, encoding, certain=all_utf_8)
        slashed = read.text.replace("\\", "/") if info.create_system == _BY_WINDOWS else read.text
        yield read._replace(text=slashed)


def tar_name(text: str, *, stated: bool, encoding: str | None) -> Name:
    """Return the name of a tar file's member.

    Args:
        text: Read as UTF-8, with other bytes as surrogates.
        stated: Whether the file says that it is UTF-8.
        encoding: Of the names that do not say theirs; None if it is not known.
    """
    raw = text.encode("utf-8", "surrogateescape")
    if raw.isascii() or (stated and _decoded(raw, ("utf-8",)) is not None):
        return Name(text)
    return _name(raw, text, encoding, certain=_is_utf_8(raw))


def readings(raw: bytes, beside: Iterable[bytes] = ()) -> dict[str, str]:
    """Return what a name would be in likely encodings, by encoding.

    Args:
        raw: As it is written.
        beside: Other names in the same encoding: one that cannot read those is none.
    """
    others = list(beside)
    found: dict[str, str] = {}
    for encoding in ("utf-8", *_LIKELY, _ZIP_ENCODING):
        text = _decoded(raw, (encoding,))
        if text is None or not all(letter.isascii() or letter.isalnum() for letter in text):
            continue
        if text not in found.values() and all(_decoded(other, (encoding,)) is not None for other in others):
            found[encoding] = text
    return found


def _name(raw: bytes, otherwise: str, encoding: str | None, *, certain: bool) -> Name:
    text = _decoded(raw, ("utf-8",) if encoding is None else (encoding, "utf-8"))
    if text is None:
        return Name(otherwise, raw)
    return Name(text, None if certain or encoding is not None else raw)


def _is_utf_8(raw: bytes) -> bool:
    """Return whether a name is one in UTF-8, and not by accident: two bytes of GBK can be a letter."""
    text = _decoded(raw, ("utf-8",))
    return text is not None and all(_is_word(PurePosixPath(part).stem) for part in text.split("/"))


def _is_word(text: str) -> bool:
    """Return whether text is in letters that stand together, or that other encodings hardly give."""
    letters = [letter for letter in text if not letter.isascii()]
    latin = any(letter.isascii() and letter.isalpha() for letter in text)
    if not letters or latin or max(letters) > _TWO_BYTES_OF_UTF_8:
        return True
    scripts = {name(letter, "").partition(" ")[0] for letter in letters}
    return len(letters) > 1 and len(scripts) == 1 and not scripts & {"LATIN", ""}


def _decoded(raw: bytes, encodings: Iterable[str]) -> str | None:
    """Return a name in the first encoding that can read it."""
    for encoding in encodings:
        with suppress(UnicodeError):
            return codecs.decode(raw, encoding)
    return None


def _unstated(info: zipfile.ZipInfo) -> bytes | None:
    """Return a name as it is written if the zip file does not say its encoding; None for ASCII and others."""
    if info.flag_bits & UTF_8_NAME or info.orig_filename.isascii() or _unicode_path(info) is not None:
        return None
    try:
        return info.orig_filename.encode(_ZIP_ENCODING)
    except UnicodeError:  # later Pythons read the Unicode path themselves
        return None


def _stated_text(info: zipfile.ZipInfo) -> str:
    return _unicode_path(info) or info.filename


def _unicode_path(info: zipfile.ZipInfo) -> str | None:
    """Return the path in Info-ZIP's field, which 7-Zip writes too; None if it is of another name."""
    extra = info.extra
    while len(extra) >= struct.calcsize("<HH"):
        kind, length = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind != _UNICODE_PATH or len(field) < struct.calcsize("<BL"):
            continue
        version, checksum = struct.unpack_from("<BL", field)
        with suppress(UnicodeError):
            text, written = field[5:].decode(), info.orig_filename.encode(_ZIP_ENCODING)
            if version == _UNICODE_PATH_VERSION and checksum == zlib.crc32(written):
                return text
    return None
