"""Open the URL of a bundle, all of it or a range, and read it piece by piece. Blocking."""

import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import urlsplit

from bus.files.file_url import path_of
from bus.http_source import ANYWHERE, HttpSource, Reach
from edge.models.bundle import BundleError
from schemas.errors import PermanentError, TransientError
from schemas.messages import Release
from schemas.text import without_secrets

SCHEMES = ("file", "http", "https", "s3")
_CHUNK_BYTES = 1 << 20
_READ_S = 30
_PROGRESS_S = 60.0
_HEAD_START_S = 1.0
_SLOWEST_BYTES_PER_S = 1000  # a slower source is given up for this attempt

Abandoned = Callable[[], bool]
"""Asked during a download; True ends it."""


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


@dataclass(slots=True)
class Traffic:
    """Costs of a download, counted while it runs, so also if it fails.

    Attributes:
        fetched_bytes: that came from the URL.
        reused_bytes: that this node had.
    """

    fetched_bytes: int = 0
    reused_bytes: int = 0


def scheme_of(release: Release) -> str:
    """Return the scheme of a release's URL.

    Raises:
        BundleError: It is not supported.
    """
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


def open_source(
    url: str, span: tuple[int, int] | None = None, reach: Reach = ANYWHERE
) -> AbstractContextManager[Source]:
    """Open a URL whose scheme is supported.

    Args:
        url: Of a file.
        span: Offset and number of bytes to read; the whole file by default. Only a file may give more.
        reach: How an HTTP server is reached.
    """
    scheme = urlsplit(url).scheme
    if scheme == "file":  # fsspec would take `%20` in it for three characters, and `*` or `::` for its own
        file = path_of(url).open("rb")
        file.seek(0 if span is None else span[0])
        return file
    if scheme in ("http", "https"):  # fsspec reads a partial answer whole, before any size is known
        return HttpSource(url, _READ_S, span, reach)
    import fsspec  # noqa: PLC0415  # 2 MB and a twentieth of the start, and few sites release by S3

    if span is None:
        source: AbstractContextManager[Source] = fsspec.open(url, "rb")
        return source
    files, path = fsspec.core.url_to_fs(url)
    return io.BytesIO(files.cat_file(path, start=span[0], end=span[0] + span[1]))


def chunks(source: Source, most_bytes: int, traffic: Traffic, abandoned: Abandoned) -> Iterator[bytes]:
    """Yield pieces until the end, or until more than `most_bytes` were read.

    Raises:
        FetchError: Too few bytes arrived for a minute, or the download was abandoned.
    """
    total, since, before = 0, time.monotonic(), 0
    began = since
    # The bound also holds for a source that is larger than released, or endless.
    while total <= most_bytes and (chunk := source.read(min(_CHUNK_BYTES, most_bytes - total + 1))):
        total += len(chunk)
        traffic.fetched_bytes += len(chunk)
        yield chunk
        # Not at once: a download that takes no time gets its verdict first.
        if time.monotonic() - began >= _HEAD_START_S and abandoned():
            raise FetchError("a newer release arrived")
        if (passed_s := time.monotonic() - since) >= _PROGRESS_S:
            if total - before < _SLOWEST_BYTES_PER_S * passed_s:
                raise FetchError(f"only {total - before} bytes arrived in {passed_s:.0f} s")
            since, before = time.monotonic(), total


@contextmanager
def fetch_errors(release: Release) -> Iterator[None]:
    """Map the errors of all sources to FetchError; those of the bundle and of the disk pass."""
    what = f"cannot download version {release.version} from {without_secrets(release.url)}"
    try:
        yield
    except (PermanentError, DiskError):
        raise
    except TransientError as error:
        raise FetchError(f"{what}: {error}") from None
    except OSError as error:
        raise FetchError(f"{what}: {error.strerror or error}") from None
    except Exception as error:  # noqa: BLE001  # every file system of fsspec raises other errors
        raise FetchError(f"{what}: {_shown(repr(error), release)}") from None


@contextmanager
def writing(target: Path, *, keep: bool = False) -> Iterator[BinaryIO]:
    """Open a file for writing, and for reading too; `keep` keeps what it has.

    Raises:
        DiskError: It cannot be opened.
    """
    try:
        file = target.open("r+b" if keep and target.exists() else "w+b")
    except OSError as error:
        raise DiskError(target, error) from None
    try:
        yield file
    finally:
        with suppress(OSError):  # what counts was synced before
            file.close()


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Map errors of writing a file to DiskError."""
    try:
        yield
    except OSError as error:
        raise DiskError(target, error) from None


def sync(file: BinaryIO, target: Path) -> None:
    """Sync a file that was written: else a power cut could leave a verified bundle with holes.

    Raises:
        DiskError: The disk refused.
    """
    with disk_errors(target):
        file.flush()
        os.fsync(file.fileno())


def _shown(text: str, release: Release) -> str:
    """Return a library's message about a release, without the secrets of its URL."""
    return text.replace(release.url, without_secrets(release.url))
