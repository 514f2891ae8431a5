"""Show a zip or tar file to the readers of folders, without unpacking its pictures.

It becomes a folder of placeholders: files without content, with the names and dates of the members. Lists of
pictures, such as CSV or JSON, have their content. A picture is read from the archive when it is imported.
"""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath

from cloud.dataset.importing.entry import (
    MISSING,
    PICTURE_SUFFIXES,
    READ_ARCHIVES,
    Entry,
    Item,
    PassedOver,
    is_archive,
    looks_like_picture,
)
from cloud.dataset.importing.formats.archive_formats import MAX_MEMBERS, Member, Reader, open_archive
from cloud.dataset.importing.formats.archive_names import readings
from cloud.dataset.importing.formats.class_names import CLASS_NAME_FILES
from cloud.dataset.importing.formats.folder import split_of, visible_children
from cloud.progress import NoProgress, Progress
from schemas.errors import PermanentError
from schemas.text import escaped

_LIST_SUFFIXES = frozenset({".csv", ".tsv", ".json", ".jsonl", ".xml", ".parquet"})
_HEAD_BYTES = 8  # by which `looks_like_picture` knows a file without a suffix
_MAX_DEPTH = 100
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_KEPT_FREE_BYTES = 64 << 20


def archive_in(path: Path) -> tuple[Path, PurePosixPath] | None:
    """Return the archive that a path leads to, or into, and the path inside it; None if there is none.

    Raises:
        PermanentError: It is an archive of a kind that is not read.
    """
    for place in (path, *path.parents):
        if place.is_file():
            if not is_archive(place.name):
                return None
            if place.name.casefold().endswith(READ_ARCHIVES):
                return place, PurePosixPath(*path.parts[len(place.parts) :])
            raise PermanentError(
                f"{escaped(place)} is an archive of a kind that is not read",
                hint="unpack it and import the folder; of archives zip and tar are read",
            )
        if place.exists():
            return None
    return None


class Archive:
    """The files of an archive as placeholders.

    Attributes:
        root: The folder that has them.
        passed_over: Members that are not there, with the reasons.
    """

    def __init__(self, path: Path, reader: Reader, folder: Path) -> None:
        self._path = path
        self._reader = reader
        # One level down: readers look around the folder of a list, too.
        self.root = folder / "files"
        self.root.mkdir()
        self.passed_over: list[Entry] = []
        self._members: dict[str, Member] = {}
        self._unsure: dict[str, bytes] = {}  # parts of paths whose encoding is not known
        self._places = 0

    def lay_out(self, progress: Progress) -> None:
        """Make the placeholders.

        Raises:
            PermanentError: The archive is damaged or too large, or there is no space for its lists.
        """
        progress.start("list the archive", 100)
        shown = 0
        for member in self._reader.members():
            if member.raw_name is not None:
                self._note_parts(member.name, member.raw_name)
            if (percent := self._reader.percent) > shown:
                progress.advance(percent - shown)
                shown = percent
            reason = member.problem or self._unusable(member.name)
            if reason is not None:
                self.passed_over.append(PassedOver(member.name, reason))
                continue
            try:
                self._place(member)
            except (OSError, ValueError) as error:
                if isinstance(error, OSError) and error.errno in _NO_SPACE:
                    raise self._no_space() from None
                self.passed_over.append(PassedOver(member.name, _why_not(error)))

    def _note_parts(self, name: str, raw: bytes) -> None:
        parts = zip(name.split("/"), raw.split(b"/" if b"/" in raw else b"\\"), strict=False)
        self._unsure.update((text, part) for text, part in parts if not part.isascii())

    def _unusable(self, name: str) -> str | None:
        """Return why the path of a member cannot be used, None if it can."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            return "its path leads out of the archive"
        if len(path.parts) > _MAX_DEPTH:
            return f"more than {_MAX_DEPTH} folders inside one another"
        return None

    def _place(self, member: Member) -> None:
        relative = str(PurePosixPath(member.name))
        place = self.root / relative
        self._make_folder(place if member.is_folder else place.parent)
        if member.is_folder:
            return
        suffix = place.suffix.lower()
        is_list = suffix in _LIST_SUFFIXES or place.name.casefold() in CLASS_NAME_FILES
        if is_list and member.size_bytes + _KEPT_FREE_BYTES > shutil.disk_usage(self.root).free:
            raise self._no_space()
        content: Iterable[bytes] = ()
        if is_list:
            content = self._reader.chunks(member)
        elif suffix not in PICTURE_SUFFIXES and not is_archive(place.name):
            content = islice(self._reader.chunks(member, _HEAD_BYTES), 1)
        try:
            with place.open("wb") as file:  # of two members of one name the later one counts
                file.writelines(content)
        except PermanentError as error:
            place.unlink()  # half a list would be read as one
            self.passed_over.append(PassedOver(member.name, str(error)))
            return
        os.utime(place, (member.at_s, member.at_s))
        self._members[relative] = member

    def _make_folder(self, folder: Path) -> None:
        missing = []
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        self._places += len(missing)
        if self._places > MAX_MEMBERS:
            raise PermanentError(
                f"cannot import {escaped(self._path)}: the archive has more than {MAX_MEMBERS} folders"
            )
        for one in reversed(missing):
            one.mkdir()

    def _no_space(self) -> PermanentError:
        return PermanentError(
            f"no space for the lists of {escaped(self._path)} in {self.root.parent.parent}",
            hint="set TMPDIR to a folder with space, or unpack the archive and import the folder",
        )

    def entries(self, found: Sequence[Entry]) -> list[Entry]:
        """Replace the placeholders that readers found by the members of the archive.

        Pictures of a compressed tar file are in its order, so that it is decompressed only once.

        Raises:
            PermanentError: Names matter that the archive has in an unknown encoding.
        """
        self._check_names(found)
        entries = [self._entry(entry) for entry in found]
        if self._reader.in_order:
            entries.sort(key=self._position)
        return [*self.passed_over, *entries]

    def _check_names(self, found: Sequence[Entry]) -> None:
        """Refuse class names, and files that a list names, if their encoding would be a guess."""
        if not self._unsure:
            return
        items = [entry for entry in found if isinstance(entry, Item)]
        unsure = [item.label for item in items if item.label is not None and not item.label.isascii()]
        missing = (
            entry.name
            for entry in found
            if isinstance(entry, PassedOver) and entry.reason.startswith(MISSING)
        )
        listed = not items or not all(map(str.isascii, missing))
        if listed or any(_has_any(text, unsure) for text in self._unsure):
            raise self._ask_for_encoding([] if listed else unsure)

    def _ask_for_encoding(self, names: Sequence[str] = ()) -> PermanentError:
        raw = next((raw for text, raw in self._unsure.items() if not names or _has_any(text, names)))
        known = readings(raw, self._unsure.values())
        shown = ", ".join(f"{text!r} in {encoding}" for encoding, text in known.items()) or "in no usual one"
        return PermanentError(
            f"cannot import {escaped(self._path)}: it does not say in which encoding its names are",
            hint=f"say it with --name-encoding ENCODING; {_quoted(raw)} is {shown}",
        )

    def _entry(self, entry: Entry) -> Entry:
        if isinstance(entry, PassedOver) or entry.path is None:
            return entry
        relative = os.path.relpath(entry.path, self.root)
        if (member := self._members.get(relative)) is None:
            return PassedOver(entry.name, "not in the archive")
        read = partial(self._read, member)
        return replace(entry, read=read, size_bytes=member.size_bytes)

    def _position(self, entry: Entry) -> int:
        if isinstance(entry, PassedOver) or entry.path is None:
            return 0
        key = self._members[os.path.relpath(entry.path, self.root)].key
        return key if isinstance(key, int) else 0

    def _read(self, member: Member) -> bytes:
        return b"".join(self._reader.chunks(member))

    def start(self, inside: PurePosixPath, *, labelled: bool) -> Path:
        """Return the folder or file to import: of an archive with one folder around everything, that folder.

        Args:
            inside: What was asked for, relative to the root.
            labelled: Whether all pictures have one label, so that a folder's name is not used as a class.

        Raises:
            PermanentError: The archive does not have it.
        """
        here = self.root / inside
        if ".." in inside.parts or not here.exists():
            raise PermanentError(f"{escaped(self._path)} has no folder or file {escaped(inside)}")
        if inside.parts:
            return here
        while (inner := _only_folder(here)) is not None and (labelled or not _is_class(inner)):
            here = inner
        return here

    def renamed(self, error: PermanentError) -> PermanentError:
        """Return an error of a reader with the names of the archive in place of those of the placeholders.

        It may be for names in an unknown encoding, which a list or an option has otherwise.
        """
        if self._unsure:
            return self._ask_for_encoding()
        shown = escaped(self._path)
        subject, expected, got, hint = (
            None if part is None else str(part).replace(str(self.root), shown)
            for part in (error.subject, error.expected, error.got, error.hint)
        )
        return PermanentError(str(subject), expected=expected, got=got, hint=hint)


@contextmanager
def opened_archive(
    path: Path, folder: Path, name_encoding: str | None = None, progress: Progress | None = None
) -> Iterator[Archive]:
    """Open an archive for the length of a block.

    Args:
        path: The archive.
        folder: An empty one for the placeholders.
        name_encoding: Of the names that do not say theirs; None if it is not known.
        progress: Advances by members.

    Raises:
        PermanentError: It cannot be read, see `Archive.lay_out`.
    """
    with open_archive(path, name_encoding) as reader:
        archive = Archive(path, reader, folder)
        archive.lay_out(progress or NoProgress())
        yield archive


def _has_any(text: str, names: Iterable[str]) -> bool:
    return any(name in text for name in names)


def _quoted(raw: bytes) -> str:
    return repr(raw).removeprefix("b")


def _why_not(error: OSError | ValueError) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
        return "a file and a folder of the archive have this name"
    return f"no file can have this name: {error.strerror}" if isinstance(error, OSError) else str(error)


def _only_folder(folder: Path) -> Path | None:
    """Return the only folder in a folder, if its other files are nothing to import, such as a README."""
    children = visible_children(folder)
    folders = [path for path in children if path.is_dir()]
    files = [path for path in children if not path.is_dir()]
    return folders[0] if len(folders) == 1 and not any(map(_is_of_use, files)) else None


def _is_of_use(file: Path) -> bool:
    return file.suffix.lower() in _LIST_SUFFIXES or is_archive(file.name) or looks_like_picture(file)


def _is_class(folder: Path) -> bool:
    """Return whether a folder is one of a class or a split, and not one around everything."""
    if split_of(folder.name):
        return True
    files = [path for path in visible_children(folder) if path.is_file()]
    listed = any(path.suffix.lower() in _LIST_SUFFIXES for path in files)
    return not listed and any(map(looks_like_picture, files))
