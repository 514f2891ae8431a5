"""Fetch, verify and unpack a model bundle: a tar of one SavedModel. Blocking functions, called in a thread.

The archive is not trusted: only plain files and folders below its root are unpacked, and no more bytes than
the release allows.
"""

import errno
import hashlib
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol
from urllib.parse import urlsplit

import fsspec

from bus.file_url import path_of
from bus.http_source import HttpSource
from schemas.errors import PermanentError, TransientError
from schemas.messages import Release
from schemas.text import without_secrets

SCHEMES = ("file", "http", "https", "s3")
CLASSES_ASSET = "assets/classes.txt"
_CHUNK_BYTES = 1 << 20
_READ_S = 30
_PROGRESS_S = 60.0
_HEAD_START_S = 1.0
_SLOWEST_BYTES_PER_S = 1000  # a slower source is given up for this attempt
_MAX_MEMBERS = 10_000
# Errors of the archive's names, for example a file where a folder has to be; others are errors of the disk.
_NAME_ERRORS = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)


class BundleError(PermanentError):
    """A bundle that must not be served: its digest, size, archive or content is wrong."""


class FetchError(TransientError):
    """The bundle cannot be downloaded now."""


class DiskError(TransientError):
    """A bundle cannot be written to this node's disk.

    Args:
        path: What was written.
        error: Of the system.
    """

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"cannot write {path}: {error.strerror or error}",
            hint="free space there, or make the folder writable for this service",
        )


class Source(Protocol):
    """An open bundle."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, empty at the end."""


def fetch(release: Release, target: Path, abandoned: Callable[[], bool] = lambda: False) -> None:
    """Download the bundle to a file and verify its size and digest.

    Args:
        release: What to download.
        target: The file to write.
        abandoned: Asked with each piece; True ends the download.

    Raises:
        FetchError: The URL cannot be read now, is too slow, or the download was abandoned.
        DiskError: The file cannot be written.
        BundleError: The scheme is not supported, or size or digest differ from the release.
    """
    scheme = _scheme(release)
    what = f"cannot download version {release.version} from {without_secrets(release.url)}"
    digest = hashlib.sha256()
    try:
        with _source(release.url, scheme) as source, _writing(target) as copy:
            _check_size(release, _stated_size(source))
            size_bytes = 0
            for chunk in _chunks(source, release.size_bytes, abandoned):
                _write(copy, chunk, target)
                digest.update(chunk)
                size_bytes += len(chunk)
            _sync(copy, target)
    except (BundleError, DiskError):
        raise
    except TransientError as error:
        raise FetchError(f"{what}: {error}") from None
    except OSError as error:
        raise FetchError(f"{what}: {error.strerror or error}") from None
    except Exception as error:  # noqa: BLE001  # every file system of fsspec raises other errors
        raise FetchError(f"{what}: {_shown(repr(error), release)}") from None
    _check_size(release, size_bytes)
    if digest.hexdigest() != release.sha256:
        raise BundleError(
            f"bundle {without_secrets(release.url)}",
            expected=f"sha256 {release.sha256}",
            got=digest.hexdigest(),
        )


def _chunks(source: Source, most_bytes: int, abandoned: Callable[[], bool]) -> Iterator[bytes]:
    """Yield pieces until the end, or until more than `most_bytes` were read.

    Raises:
        FetchError: Too few bytes arrived for a minute, or the download was abandoned.
    """
    total, since, before = 0, time.monotonic(), 0
    began = since
    # The bound also holds for a source that is larger than released, or endless.
    while total <= most_bytes and (chunk := source.read(_CHUNK_BYTES)):
        total += len(chunk)
        yield chunk
        # Not at once: a download that takes no time gets its verdict first.
        if time.monotonic() - began >= _HEAD_START_S and abandoned():
            raise FetchError("a newer release arrived")
        if (passed_s := time.monotonic() - since) >= _PROGRESS_S:
            if total - before < _SLOWEST_BYTES_PER_S * passed_s:
                raise FetchError(f"only {total - before} bytes arrived in {passed_s:.0f} s")
            since, before = time.monotonic(), total


def _check_size(release: Release, size_bytes: int | None) -> None:
    if size_bytes is not None and size_bytes != release.size_bytes:
        raise BundleError(
            f"bundle {without_secrets(release.url)}", expected=f"{release.size_bytes} bytes", got=size_bytes
        )


def _stated_size(source: Source) -> int | None:
    """Return the size of a source before it is read, None if it is unknown."""
    size = getattr(source, "size_bytes", None) or getattr(source, "size", None)
    return size if isinstance(size, int) else None


@contextmanager
def _writing(target: Path) -> Iterator[BinaryIO]:
    try:
        file = target.open("wb")
    except OSError as error:
        raise DiskError(target, error) from None
    try:
        yield file
    finally:
        with suppress(OSError):  # what counts was synced before
            file.close()


def _write(file: BinaryIO, chunk: bytes, target: Path) -> None:
    try:
        file.write(chunk)
    except OSError as error:
        raise DiskError(target, error) from None


def _sync(file: BinaryIO, target: Path) -> None:
    try:
        file.flush()
        os.fsync(file.fileno())  # else a power cut could leave a verified bundle with holes
    except OSError as error:
        raise DiskError(target, error) from None


def unpack(bundle: Path, directory: Path, *, most_bytes: int) -> None:
    """Unpack a bundle into a new directory.

    Args:
        bundle: The tar file.
        directory: Replaced if it exists.
        most_bytes: Upper limit of the sum of the files' sizes.

    Raises:
        BundleError: Not a tar, a member is not a plain file or folder below the root, or too large.
        OSError: The disk refused.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    left_bytes = most_bytes
    try:
        with tarfile.open(bundle, "r:") as archive:  # no compression, so no decompression bomb
            for number, member in enumerate(archive):
                left_bytes -= member.size  # checked before anything of the member is written
                if (rule := _violated_rule(member, number, left_bytes)) is not None:
                    raise BundleError(f"bundle {bundle.name}", expected=rule, got=repr(member.name[:200]))
                _extract(archive, member, directory)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise BundleError(f"bundle {bundle.name}", expected="a readable tar", got=error) from None
    except OSError as error:
        if error.errno not in _NAME_ERRORS:
            raise
        raise BundleError(f"bundle {bundle.name} has names that cannot be in one folder: {error}") from None


def check(directory: Path, release: Release) -> None:
    """Verify that a directory is a SavedModel with the released classes.

    Raises:
        BundleError: It has no `saved_model.pb`, or its own class names differ from the release's.
    """
    if not (directory / "saved_model.pb").is_file():
        raise BundleError(f"the bundle of version {release.version} has no saved_model.pb at its root")
    names = read_class_names(directory)
    if names is not None and list(names) != release.classes:
        raise BundleError(
            f"bundle of version {release.version}", expected=f"classes {release.classes}", got=list(names)
        )


def read_class_names(directory: Path) -> tuple[str, ...] | None:
    """Return the class names in a SavedModel's assets, one per line; None without that asset."""
    try:
        return tuple((directory / CLASSES_ASSET).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError):
        return None


def _scheme(release: Release) -> str:
    try:
        scheme = urlsplit(release.url).scheme
    except ValueError:
        scheme = ""
    if scheme not in SCHEMES:
        raise BundleError(
            f"URL of version {release.version}",
            expected=f"a scheme of {SCHEMES}",
            got=without_secrets(release.url),
        )
    if scheme == "file":
        try:
            path_of(release.url)
        except PermanentError as error:
            raise BundleError(f"URL of version {release.version}: {_shown(str(error), release)}") from None
    return scheme


def _shown(text: str, release: Release) -> str:
    """Return what a library says about a release, without the secrets of its URL."""
    return text.replace(release.url, without_secrets(release.url))


def _source(url: str, scheme: str) -> AbstractContextManager[Source]:
    if scheme == "file":  # fsspec would take `%20` in it for three characters, and `*` or `::` for its own
        return path_of(url).open("rb")
    if scheme in ("http", "https"):  # fsspec reads a partial answer whole, before any size is known
        return HttpSource(url, _READ_S)
    source: AbstractContextManager[Source] = fsspec.open(url, "rb")
    return source


def _violated_rule(member: tarfile.TarInfo, number: int, left_bytes: int) -> str | None:
    """Return the rule that a member violates, None if it may be unpacked."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not (member.isreg() or member.isdir()):
        return "plain files below its root"
    if member.size < 0 or left_bytes < 0:  # with a negative size tarfile reads the same header for ever
        return "no more than the released size"
    if number >= _MAX_MEMBERS:
        return f"at most {_MAX_MEMBERS} files and folders"
    return None


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, directory: Path) -> None:
    target = directory / member.name  # mode and owner of the member are ignored
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source = archive.extractfile(member)
    if source is not None:
        with source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy, _CHUNK_BYTES)
