"""List and read the members of zip and tar files, with bounds on what a hostile or damaged one can cost."""

import bz2
import gzip
import io
import lzma
import stat
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import IO, NamedTuple, Protocol, cast

from cloud.dataset.importing.formats.archive_names import UTF_8_NAME, tar_name, zip_names
from schemas.errors import PermanentError
from schemas.text import escaped

MAX_MEMBERS = 500_000
"""Most files and folders of an archive."""
MAX_RATIO = 100
"""An archive holds at most this many times its own size: pictures are compressed already, tables by 20."""

_SLACK_BYTES = 64 << 20
_MAX_DIRECTORY_BYTES = 64 << 20
_MAX_HEADER_BYTES = 4 << 20
_CHUNK_BYTES = 1 << 18
_ENCRYPTED = 0x1
_ZIP_ENTRY = b"PK\x01\x02"
_ENTRY = struct.Struct("<8xH18xHHH12x")  # of the directory: flags; lengths of name, extra and comment
_FLAGS_AT = 8
_ZIP_HEADER = b"PK\x03\x04"
_HEADER_FLAGS_AT = 6
_NOT_UTF_8 = "its name is not UTF-8, although the archive says so; name its encoding with --name-encoding"
_ZIP_HEADS = (b"PK\x03\x04", b"PK\x05\x06")
_TAR_MAGIC_AT, _TAR_MAGIC = 257, b"ustar"
_MAX_TIME_S = 2.0**33
_DAMAGES = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, NotImplementedError, RuntimeError, ValueError, OverflowError),
)
_COMPRESSED: dict[bytes, Callable[[IO[bytes]], object]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}


class Member(NamedTuple):
    """A file or folder of an archive.

    Attributes:
        name: Its path as it is written, with slashes; it may lead anywhere.
        size_bytes: As it is written; no more than that is read.
        at_s: When it was modified, seconds since 1970.
        key: What finds its content: the entry of a zip file, or where it begins in a tar file.
        is_folder: Whether it is a folder.
        problem: Why it cannot be read; None if it can.
        raw_name: The name as it is written, if its encoding is not known.
    """

    name: str
    size_bytes: int
    at_s: float
    key: zipfile.ZipInfo | int
    is_folder: bool = False
    problem: str | None = None
    raw_name: bytes | None = None


class Reader(Protocol):
    """An open archive."""

    @property
    def in_order(self) -> bool:
        """Whether its members are to be read in their order: going back means to start over."""

    @property
    def percent(self) -> int:
        """How much of it has been listed."""

    def members(self) -> Iterator[Member]:
        """Yield the members in their order.

        Raises:
            PermanentError: It is damaged, or larger than an archive of pictures can be.
        """

    def chunks(self, member: Member, size: int = _CHUNK_BYTES) -> Iterator[bytes]:
        """Yield the content of a member.

        Raises:
            PermanentError: It is damaged.
        """


@contextmanager
def open_archive(path: Path, name_encoding: str | None = None) -> Iterator[Reader]:
    """Open a zip or tar file; recognised by its content, not by its name.

    Args:
        path: The file.
        name_encoding: Of the names that do not say theirs; None if it is not known.

    Raises:
        PermanentError: It is neither, or it is damaged.
    """
    with ExitStack() as stack:
        with _damage_reported(path):
            file = stack.enter_context(path.open("rb"))
            if _is_zip(file):
                reader: Reader = _Zip(path, name_encoding, stack)
            else:
                reader = _Tar(path, file, name_encoding, stack)
        yield reader


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    """Raise as one sentence what the libraries raise for damaged bytes."""
    try:
        yield
    except _DAMAGES as error:
        raise PermanentError(
            f"cannot read the archive {escaped(path)}: {escaped(str(error) or type(error).__name__)}",
            hint="if it is damaged or cut off, copy it again",
        ) from None


def _is_zip(file: IO[bytes]) -> bool:
    """Return whether a file is a zip file: a tar file with one near its end is none."""
    file.seek(0)
    head = file.read(_TAR_MAGIC_AT + len(_TAR_MAGIC))
    if head.startswith(_ZIP_HEADS):
        return True
    return (
        not head.startswith(tuple(_COMPRESSED)) and not head.endswith(_TAR_MAGIC) and zipfile.is_zipfile(file)
    )


class _Bounds:
    """Refuses an archive that holds more than one of pictures does, before anything of that is read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._most_bytes = _SLACK_BYTES + MAX_RATIO * path.stat().st_size
        self._members = 0

    def check(self, bytes_so_far: int) -> None:
        """Count a member.

        Raises:
            PermanentError: There are too many, or they hold too much.
        """
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise self._refusal(f"more than {MAX_MEMBERS} files")
        if bytes_so_far > self._most_bytes:
            raise self._refusal(f"more than {MAX_RATIO} times its own size")

    def _refusal(self, what: str) -> PermanentError:
        return PermanentError(
            f"cannot import {escaped(self._path)}: the archive holds {what}",
            hint="if you trust it, unpack it and import the folder",
        )


class _Zip:
    """A zip file: its directory has all members, which can be read in any order."""

    in_order = False

    def __init__(self, path: Path, name_encoding: str | None, stack: ExitStack) -> None:
        self._file = stack.enter_context(_DirectoryFile(io.FileIO(path)))
        self._zip = stack.enter_context(zipfile.ZipFile(self._file))
        listed = self._zip.infolist()
        self._file.misnamed_at = {listed[number].header_offset for number in self._file.misnamed}
        self._path = path
        self._name_encoding = name_encoding
        self._listed = 0

    @property
    def percent(self) -> int:
        return 100 * self._listed // max(1, len(self._zip.infolist()))

    def members(self) -> Iterator[Member]:
        bounds, so_far = _Bounds(self._path), 0
        listed = self._zip.infolist()
        names = zip_names(listed, self._name_encoding, self._file.misnamed)
        for number, (info, (name, raw)) in enumerate(zip(listed, names, strict=True)):
            self._listed += 1
            so_far += info.file_size
            bounds.check(so_far)
            at_s, is_folder = _zip_time_s(info), name.endswith("/")
            member = Member(name, info.file_size, at_s, info, is_folder, _zip_problem(info), raw)
            yield _misnamed(member, raw) if number in self._file.misnamed and raw else member

    def chunks(self, member: Member, size: int = _CHUNK_BYTES) -> Iterator[bytes]:
        with _damage_reported(self._path), self._zip.open(cast("zipfile.ZipInfo", member.key)) as file:
            while chunk := file.read(size):
                yield chunk


class _DirectoryFile(io.BufferedReader):
    """A zip file as zipfile reads it: its directory in one piece.

    A huge directory is refused. One name that is not UTF-8, although its entry says so, would be an error for
    the whole file: such entries are shown without that flag.

    Attributes:
        misnamed: Positions in the directory of the members with such names.
        misnamed_at: Where their headers begin; None until the directory has been read.
    """

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self.misnamed: set[int] = set()
        self.misnamed_at: set[int] | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"its directory has {size} bytes, more than {_MAX_DIRECTORY_BYTES}")
        at, content = self.tell(), super().read(size)
        if self.misnamed_at is None:
            return self._directory(content) if content.startswith(_ZIP_ENTRY) else content
        if at in self.misnamed_at and content.startswith(_ZIP_HEADER):
            return _without_flag(content, _HEADER_FLAGS_AT)
        return content

    def _directory(self, content: bytes) -> bytes:
        at = number = 0
        self.misnamed.clear()  # zipfile may have read the end of the file before
        while content.startswith(_ZIP_ENTRY, at) and at + _ENTRY.size <= len(content):
            flags, name_bytes, extra_bytes, comment_bytes = _ENTRY.unpack_from(content, at)
            name_at = at + _ENTRY.size
            if flags & UTF_8_NAME and not _is_text(content[name_at : name_at + name_bytes]):
                content = _without_flag(content, at + _FLAGS_AT)
                self.misnamed.add(number)
            number += 1
            at = name_at + name_bytes + extra_bytes + comment_bytes
        return content


def _misnamed(member: Member, raw: bytes) -> Member:
    shown = raw.decode("utf-8", "backslashreplace")
    return member._replace(name=shown, problem=_NOT_UTF_8, raw_name=None)


def _without_flag(content: bytes, at: int) -> bytes:
    """Return the bytes of an entry that does not say UTF-8."""
    (flags,) = struct.unpack_from("<H", content, at)
    return content[:at] + struct.pack("<H", flags & ~UTF_8_NAME) + content[at + 2 :]


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _zip_problem(info: zipfile.ZipInfo) -> str | None:
    if info.flag_bits & _ENCRYPTED:
        return "encrypted; unpack it with its password"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "a link"
    # The other decompressors of zipfile have no bound for what one read returns.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"compressed by method {info.compress_type} of zip, which is not read; unpack it"
    return None


def _zip_time_s(info: zipfile.ZipInfo) -> float:
    """Return when a member was modified: zip files have local time without a zone."""
    try:
        return max(0.0, time.mktime((*info.date_time, 0, 0, -1)))
    except (OverflowError, ValueError):
        return 0.0


class _Tar:
    """A tar file, also a compressed one: its members are listed and read one after the other."""

    def __init__(self, path: Path, file: IO[bytes], name_encoding: str | None, stack: ExitStack) -> None:
        self._path = path
        self._name_encoding = name_encoding
        self._raw = file
        self._file = _uncompressed(file, stack)
        self._size_bytes = max(1, path.stat().st_size)

    @property
    def in_order(self) -> bool:
        return self._file is not self._raw

    @property
    def percent(self) -> int:
        return 100 * self._raw.tell() // self._size_bytes

    def members(self) -> Iterator[Member]:
        bounds, end = _Bounds(self._path), 0
        with _damage_reported(self._path):
            self._file.seek(0)
            headers = _HeaderBound(self._file)
            with closing(_opened_tar(headers)) as tar:
                while (info := _next(tar, headers)) is not None:
                    if info.size < 0 or tar.offset <= end:  # of the next header: it would never end
                        raise tarfile.ReadError("a header leads back")
                    end = tar.offset
                    bounds.check(end)
                    yield _tar_member(info, self._name_encoding)

    def chunks(self, member: Member, size: int = _CHUNK_BYTES) -> Iterator[bytes]:
        left = member.size_bytes
        with _damage_reported(self._path):
            self._file.seek(cast("int", member.key))
            while left > 0:
                chunk = self._file.read(min(left, size))
                if not chunk:
                    raise tarfile.ReadError("unexpected end of data")
                left -= len(chunk)
                yield chunk


class _HeaderBound:
    """The file as tarfile sees it, which reads headers of any length into memory: with a bound for each."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.left = _MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise tarfile.TarError(f"a header has more than {_MAX_HEADER_BYTES} bytes")
        return self._file.read(size)

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()


def _opened_tar(headers: _HeaderBound) -> tarfile.TarFile:
    try:
        return tarfile.TarFile(fileobj=cast("IO[bytes]", headers), encoding="utf-8")
    except tarfile.ReadError:
        raise tarfile.ReadError("it is neither a zip nor a tar file") from None


def _next(tar: tarfile.TarFile, headers: _HeaderBound) -> tarfile.TarInfo | None:
    headers.left = _MAX_HEADER_BYTES
    info = tar.next()
    # It would keep all of them, each with its extended headers.
    tar.members.clear()  # type: ignore[attr-defined]  # not in its stubs
    tar.pax_headers.clear()  # type: ignore[attr-defined]  # a dict
    return info


def _tar_member(info: tarfile.TarInfo, name_encoding: str | None) -> Member:
    problem = None
    if info.issym() or info.islnk():
        problem = "a link"
    elif info.issparse():
        problem = "a file with holes; unpack it"
    elif not (info.isreg() or info.isdir()):
        problem = "not a file"
    at_s = min(max(0.0, float(info.mtime)), _MAX_TIME_S)  # max returns its first argument if the other is NaN
    name, raw = tar_name(info.name, stated="path" in info.pax_headers, encoding=name_encoding)
    return Member(name, info.size, at_s, info.offset_data, info.isdir(), problem, raw)


def _uncompressed(file: IO[bytes], stack: ExitStack) -> IO[bytes]:
    """Return the tar file in a compressed file, or the file itself."""
    file.seek(0)
    head = file.read(_TAR_MAGIC_AT)
    file.seek(0)
    for magic, opened in _COMPRESSED.items():
        if head.startswith(magic):
            return stack.enter_context(cast("IO[bytes]", opened(file)))
    return file
