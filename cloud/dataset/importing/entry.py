"""What every import format yields: pictures with a label, and what was passed over, with the reason."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cloud.dataset.schema import Split

_SUFFIXES = ".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .tif .tiff .heic .heif .avif .mpo"
PICTURE_SUFFIXES = frozenset(_SUFFIXES.split())


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
    """

    name: str
    read: Callable[[], bytes]
    label: str | None
    split: Split | None = None
    at_ms: int | None = None
    size_bytes: int = 0


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
        kind = "a link to a file that does not exist" if path.is_symlink() else "there is no such file"
        return PassedOver(name, kind)
    except OSError as error:
        return PassedOver(name, f"cannot be read: {error.strerror}")
    if not path.is_file():
        return PassedOver(name, "not a file")
    at_ms = max(0, status.st_mtime_ns // 1_000_000)  # a file can be dated before 1970
    return Item(name, path.read_bytes, label, split, at_ms, status.st_size)


def looks_like_picture(path: Path) -> bool:
    """Return whether a file has a picture's suffix, or starts like a JPEG or PNG."""
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError:
        return False
    return head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"))
