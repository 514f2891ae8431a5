"""Put a bundle together from the parts that this node has, and ranges of the URL for the others. Blocking.

The lists are a proposal: each part is compared with its digest, and the bundle with the release's. What an
interrupted download has written is used again, because it is compared in the same way.
"""

import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar
from urllib.parse import urlsplit

from bus.http_source import ANYWHERE, HttpError, Reach
from edge.models.transfer.bundle_source import (
    Abandoned,
    Traffic,
    chunks,
    disk_errors,
    fetch_errors,
    open_source,
    scheme_of,
    sync,
    writing,
)
from edge.models.transfer.installed_parts import Holder, Installed, Lists
from schemas.messages import Release
from schemas.parts import SUFFIX, Part, PartList, PartsError, decode_part_list, part_digest

_MOST_LIST_BYTES = 1 << 20  # of the list of the list's parts
_SHORT_LIST_BYTES = 64 << 10
_LONGEST_LIST_BYTES = 8 << 20  # a bundle of 600 MB; a node holds some 100 MB for it
_MOST_RANGES = 1000
_RANGE_BYTES = 8 << 20
_SERVER_ERROR = 500

File = TypeVar("File", bound=BinaryIO)


def fetch_by_parts(
    release: Release,
    target: Path,
    installed: Sequence[Installed],
    traffic: Traffic,
    abandoned: Abandoned,
    *,
    reach: Reach = ANYWHERE,
) -> Lists:
    """Write the bundle of a release that has parts to a file, and verify it.

    Args:
        release: What to fetch.
        target: The file; what it has already is used.
        installed: Versions of which parts are used.
        traffic: Counts the bytes.
        abandoned: Asked during the download; True ends it.
        reach: How an HTTP server is reached.

    Returns:
        The lists of its parts.

    Raises:
        PartsError: The lists or parts are missing or wrong, or the server gives no ranges: fetch it whole.
        FetchError: The URL cannot be read now, is too slow, or the download was abandoned.
        DiskError: The file cannot be written.
        BundleError: The scheme is not supported.
    """
    scheme_of(release)
    with fetch_errors(release):
        remote = _Remote(release.url, traffic, abandoned, reach)
        lists = _fetch_lists(release, [one.lists for one in installed], remote)
        wanted = decode_part_list(lists.parts)
        if (wanted.sha256, wanted.size_bytes) != (release.sha256, release.size_bytes):
            raise PartsError("the list of parts is of another bundle than the released one")
        with writing(target, keep=True) as file:
            with disk_errors(target):
                file.truncate(release.size_bytes)
            _assemble(_Copy(file, target), wanted, [one.bundle for one in installed], remote)
            sync(file, target)
        with target.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != release.sha256:
        raise PartsError(
            "bundle put together from its parts", expected=f"sha256 {release.sha256}", got=digest
        )
    return lists


def _fetch_lists(release: Release, holders: Sequence[Holder], remote: "_Remote") -> Lists:
    list_parts = remote.beside(2 * SUFFIX).read_all(_MOST_LIST_BYTES)
    if (digest := hashlib.sha256(list_parts).hexdigest()) != release.parts:
        raise PartsError("list of parts", expected=f"sha256 {release.parts}", got=digest)
    wanted = decode_part_list(list_parts)
    if wanted.size_bytes > min(_LONGEST_LIST_BYTES, _SHORT_LIST_BYTES + release.size_bytes // 8):
        raise PartsError(f"the list of parts is too long: {wanted.size_bytes} bytes")
    copy = _Copy(io.BytesIO())
    _assemble(copy, wanted, holders, remote.beside(SUFFIX))
    return Lists(copy.file.getvalue(), list_parts)


class _Copy(Generic[File]):
    """The file that is put together.

    Args:
        file: Open for reading and writing.
        path: Its path, for errors; None in memory.
    """

    def __init__(self, file: File, path: Path | None = None) -> None:
        self.file = file
        self._path = path

    def has(self, part: Part) -> bool:
        """Return True if the part is in place."""
        return part_digest(self.read(part)) == part.digest

    def read(self, part: Part) -> bytes:
        """Return what is at the part's place."""
        with self._errors():  # seeking writes what is buffered
            self.file.seek(part.start)
            return self.file.read(part.size_bytes)

    def write(self, part: Part, content: bytes) -> None:
        """Put a part at its place."""
        with self._errors():
            self.file.seek(part.start)
            self.file.write(content)

    def _errors(self) -> AbstractContextManager[None]:
        return nullcontext() if self._path is None else disk_errors(self._path)


def _assemble(copy: _Copy[File], wanted: PartList, holders: Sequence[Holder], remote: "_Remote") -> None:
    """Write all parts of a file: those that are here, then those that are fetched, each digest once."""
    missing = []
    for part in wanted.parts():
        if not copy.has(part):
            found = next(filter(None, (holder.find(part) for holder in holders)), None)
            if found is None:
                missing.append(part)
                continue
            copy.write(part, found)
        remote.traffic.reused_bytes += part.size_bytes
    first: dict[bytes, Part] = {}
    for part in missing:
        first.setdefault(part.digest, part)
    runs = list(_runs(first.values()))
    if len(runs) > _MOST_RANGES:
        raise PartsError(f"the missing parts lie in {len(runs)} places, more than {_MOST_RANGES}")
    for run in runs:
        remote.fetch(run, copy.write)
    for part in missing:
        if (other := first[part.digest]) is not part:
            copy.write(part, copy.read(other))
            remote.traffic.reused_bytes += part.size_bytes


def _runs(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Yield the parts that follow each other, in ranges of bounded size."""
    run: list[Part] = []
    for part in parts:
        if run and (
            run[-1].start + run[-1].size_bytes != part.start or part.start - run[0].start >= _RANGE_BYTES
        ):
            yield run
            run = []
        run.append(part)
    if run:
        yield run


@dataclass(frozen=True, slots=True)
class _Remote:
    """A file at a URL.

    Args:
        url: Its URL.
        traffic: Counts what is read.
        abandoned: Asked with each piece; True ends the download.
        reach: How its server is reached.
    """

    url: str
    traffic: Traffic
    abandoned: Abandoned
    reach: Reach

    def beside(self, suffix: str) -> "_Remote":
        """Return the file whose path has a suffix, before a query."""
        parts = urlsplit(self.url)
        return replace(self, url=parts._replace(path=parts.path + suffix).geturl())

    def read_all(self, most_bytes: int) -> bytes:
        """Return the content of a small file."""
        with _missing_is_final(), open_source(self.url, reach=self.reach) as source:
            content = b"".join(chunks(source, most_bytes, self.traffic, self.abandoned))
        if len(content) > most_bytes:
            raise PartsError(f"the list of parts is longer than {most_bytes} bytes")
        return content

    def fetch(self, run: Sequence[Part], write: Callable[[Part, bytes], None]) -> None:
        """Fetch parts that follow each other; each is verified before it is written."""
        start, waiting, received = run[0].start, deque(run), bytearray()
        size_bytes = run[-1].start + run[-1].size_bytes - start
        with _missing_is_final(), open_source(self.url, (start, size_bytes), self.reach) as source:
            for chunk in chunks(source, size_bytes, self.traffic, self.abandoned):
                received += chunk
                while waiting and len(received) >= waiting[0].size_bytes:
                    part = waiting.popleft()
                    content = bytes(received[: part.size_bytes])
                    del received[: part.size_bytes]
                    if part_digest(content) != part.digest:
                        raise PartsError(
                            f"the server has other bytes than the list says from {part.start} on"
                        )
                    write(part, content)
                if not waiting:
                    return
        raise PartsError(f"the server's file ends before {start + size_bytes} bytes")


@contextmanager
def _missing_is_final() -> Iterator[None]:
    """Raise PartsError for what a retry would not change: a file that is missing, a server without ranges."""
    try:
        yield
    except (FileNotFoundError, PermissionError) as error:
        raise PartsError(f"cannot read a list or part: {error.strerror or error}") from None
    except HttpError as error:
        if error.status is None or error.status >= _SERVER_ERROR:
            raise
        raise PartsError(f"cannot read a list or part: {error}") from None
