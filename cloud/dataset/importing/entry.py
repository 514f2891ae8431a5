"""What every import format yields: pictures with a label, and what was skipped, with the reason."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from unicodedata import normalize

from bus.files.file_url import path_of
from cloud.dataset.schema import Split
from schemas.errors import PermanentError
from schemas.text import is_unicode

_SUFFIXES = ".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .tif .tiff .heic .heif .avif .mpo"
PICTURE_SUFFIXES = frozenset(_SUFFIXES.split())
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})
READ_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz")
_OTHER_ARCHIVES = (".7z", ".rar", ".gz", ".bz2", ".xz", ".zst")


MISSING = "there is no such file"
"""How the reason begins for a file that a list names and that is not there."""
_DRIVE = re.compile(r"[A-Za-z]:/")


class NotAListError(PermanentError):
    """A file is not a list of pictures; it may be anything else."""


@dataclass(frozen=True, slots=True)
class Item:
    """A picture to import.

    Attributes:
        name: Of the file or record, relative to what is imported; unique.
        read: Returns the encoded picture; raises OSError or PermanentError.
        label: As it is written there; None if it has none.
        split: As it is written there; None if the format has none.
        at_ms: When the label was given, UTC, as far as is known.
        size_bytes: Of the encoded picture; 0 if unknown.
        path: The file that `read` reads; None if it is part of a larger file.
    """

    name: str
    read: Callable[[], bytes]
    label: str | None
    split: Split | None = None
    at_ms: int | None = None
    size_bytes: int = 0
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Something that is not imported.

    Attributes:
        name: As of an item.
        reason: Why; a sentence without the name.
        expected: True if nobody would expect it to be imported, such as a hidden file or a text.
    """

    name: str
    reason: str
    expected: bool = False


Entry: TypeAlias = Item | PassedOver


def file_item(path: Path, name: str, label: str | None, split: Split | None = None) -> Entry:
    """Return the entry of a file: an item if it is a regular file, dated by its modification time."""
    try:
        status = path.stat()
    except FileNotFoundError:
        kind = "a link to a file that does not exist" if path.is_symlink() else MISSING
        if not is_unicode(name):
            kind = f"{kind}, and its name is not UTF-8; save the list as UTF-8"
        return PassedOver(name, kind)
    except OSError as error:
        return PassedOver(name, f"cannot be read: {error.strerror}")
    except ValueError:  # NUL, or half of a surrogate pair as JSON can have it
        return PassedOver(name, "no file can have this name")
    if not path.is_file():
        return PassedOver(name, "not a file")
    at_ms = max(0, status.st_mtime_ns // 1_000_000)  # a file can be dated before 1970
    return Item(name, path.read_bytes, label, split, at_ms, status.st_size, path)


def listed_item(folder: Path, name: str, label: object, split: Split | None = None) -> Entry:
    """Return the entry of a file that a list of pictures names.

    Args:
        folder: That of the list.
        name: As it is written: a path, also with backslashes as Windows writes it, or a file:// URL.
        label: As it is written.
        split: As it is written.
    """
    if label is not None and not isinstance(label, str | int | float):
        return PassedOver(name, "a label that is not text")
    text = None if label is None else label_text(label)
    if text is not None and not is_unicode(text):
        return PassedOver(name, "a label that is not UTF-8; save the list as UTF-8")
    if "://" not in name:
        return file_item(written_as(folder, name), name, text, split)
    if not name.casefold().startswith("file:"):
        return PassedOver(name, "an address in a network; download its picture")
    try:
        return file_item(path_of(name), name, text, split)
    except PermanentError as error:
        return PassedOver(name, str(error))


def written_as(folder: Path, name: str) -> Path:
    """Return the file that a name means: with slashes, and accents as letters or as marks (macOS).

    A path from the root of another machine is looked for by its last parts, also in a folder `images`.
    """
    slashes = name.replace("\\", "/")
    forms = (name, slashes, normalize("NFC", slashes), normalize("NFD", slashes))
    if found := next((folder / form for form in forms if is_file(folder / form)), None):
        return found
    parts = [part for part in slashes.split("/") if part]
    if slashes.startswith("/") or _DRIVE.match(slashes):
        for start in range(len(parts)):
            for place in (folder, folder / "images"):
                if is_file(candidate := place.joinpath(*parts[start:])):
                    return candidate
    return folder / slashes


def label_text(label: str | float) -> str:
    """Return a label as text: truth values as JSON writes them."""
    return str(label).lower() if isinstance(label, bool) else str(label)


def is_file(path: Path) -> bool:
    """Return whether a path names a regular file; False for one that no file can have."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_archive(name: str) -> bool:
    """Return whether a file is an archive by its name, also one of a kind that is not read."""
    return name.casefold().endswith((*READ_ARCHIVES, *_OTHER_ARCHIVES))


def files_in(folder: Path, *patterns: str) -> list[Path]:
    """Return the regular files that match a pattern, sorted; no folder, no broken link, and no FIFO."""
    return sorted(path for pattern in patterns for path in folder.glob(pattern) if is_file(path))


def looks_like_picture(path: Path) -> bool:
    """Return whether a file has a picture's suffix, or starts like a JPEG or PNG."""
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return True
    if not is_file(path):  # to open a FIFO waits for its writer
        return False
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError:
        return False
    return head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"))
