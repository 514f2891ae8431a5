"""The bundles of a mirror on its disk: verified, named by digest, the least used removed.

    <folder>/<sha256>.tar              a bundle
    <folder>/<sha256>.tar.parts        the list of its parts, and that of the list's parts, if it has some
    <folder>/<sha256>.tar.parts.parts
    <folder>/<sha256>.incoming         a download; what it has is used by the next attempt

A bundle never changes, so nothing expires. All methods block.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from urllib.parse import unquote, urlsplit

import structlog
from msgspec import structs

from bus.config import ConfigError
from bus.files.atomic_file import sync_folder, write_atomic
from edge.models.transfer.bundle_source import Abandoned, Traffic
from edge.models.transfer.download import fetch_bundle
from edge.models.transfer.installed_parts import Installed, stored_bundle
from schemas.errors import PermanentError, TransientError
from schemas.messages import Release
from schemas.parts import SUFFIX, PartsError
from schemas.text import without_secrets

_INCOMING = ".incoming"
_HOLDERS = 2
"""Bundles whose parts a download uses, the last used ones: the list of a large one takes 100 MB of memory."""
_FILE_NAME = re.compile(rf"[0-9a-f]{{64}}\.tar({re.escape(SUFFIX)}){{0,2}}")

log = structlog.get_logger()


class BundleStore:
    """The bundles of a mirror.

    Args:
        folder: Created if missing; of this mirror alone.
        max_bytes: Most bytes of bundles and downloads together.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._verified: set[str] = set()
        self._running: dict[str, int] = {}
        self._lock = Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path | None:
        """Return the file that a request names, None if it can name no file of a bundle."""
        return self._folder / name if _FILE_NAME.fullmatch(name) else None

    def has(self, release: Release) -> bool:
        """Return True if a bundle is here; the first time it is compared with its digest, and used last.

        A damaged one is removed.
        """
        bundle, digest = self._bundle(release.sha256), release.sha256
        try:
            with self._lock:
                if digest not in self._verified:
                    with bundle.open("rb") as file:
                        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                            log.warning("mirror.bundle_damaged", sha256=digest)
                            self._remove(digest)
                            return False
                    self._verified.add(digest)
                os.utime(bundle)
                return bundle.stat().st_size == release.size_bytes
        except OSError:
            return False

    def fetch(self, release: Release, abandoned: Abandoned) -> Traffic:
        """Fetch a bundle from its URL, by the parts that stored bundles lack; store it once it is verified.

        Raises:
            PermanentError: It is larger than the mirror, or not the released one.
            FetchError, DiskError: The URL cannot be read, or the bundle cannot be written, now.
            TransientError: There is no room in addition to the running downloads.
        """
        with self._lock:
            self._make_room(release)
            self._running[release.sha256] = release.size_bytes
        try:
            return self._fetch(release, abandoned)
        finally:
            with self._lock:
                del self._running[release.sha256]

    def _fetch(self, release: Release, abandoned: Abandoned) -> Traffic:
        traffic, incoming = Traffic(), self._folder / f"{release.sha256}{_INCOMING}"
        try:
            lists = fetch_bundle(release, incoming, self._holders(), traffic, abandoned)
        except PermanentError:
            incoming.unlink(missing_ok=True)
            raise
        bundle = self._bundle(release.sha256)
        if lists is not None:
            write_atomic(_with(bundle, SUFFIX), lists.parts)
            write_atomic(_with(bundle, 2 * SUFFIX), lists.list_parts)
        incoming.rename(bundle)  # it was synced
        sync_folder(self._folder)
        self._verified.add(release.sha256)
        return traffic

    def _bundle(self, digest: str) -> Path:
        return self._folder / f"{digest}.tar"

    def _remove(self, digest: str) -> None:
        self._verified.discard(digest)
        bundle = self._bundle(digest)
        for path in (bundle, _with(bundle, SUFFIX), _with(bundle, 2 * SUFFIX)):
            path.unlink(missing_ok=True)

    def _make_room(self, release: Release) -> None:
        """Remove unfinished downloads, then the least used bundles, until one more has room."""
        if release.size_bytes > self._max_bytes:
            raise PermanentError(
                f"the bundle has {release.size_bytes} bytes, more than the mirror's {self._max_bytes}",
                hint="raise --max-bytes",
            )
        used = sorted((path.stat().st_mtime, path) for path in self._folder.glob(f"*{_INCOMING}"))
        used += sorted((path.stat().st_mtime, path) for path in self._folder.glob("*.tar"))
        kept = {f"{digest}{_INCOMING}" for digest in (*self._running, release.sha256)}
        size = sum(path.stat().st_size for path in self._folder.iterdir() if path.name not in kept)
        size += sum(self._running.values()) + release.size_bytes
        for _, path in used:
            if size <= self._max_bytes:
                return
            if path.name in kept:
                continue
            size -= path.stat().st_size
            if path.suffix == _INCOMING:
                path.unlink(missing_ok=True)
            else:
                self._remove(path.stem)
                log.info("mirror.bundle_removed", sha256=path.stem)
        if size > self._max_bytes:
            raise TransientError(
                "the mirror has no room beside the downloads that run", hint="raise --max-bytes"
            )

    def _holders(self) -> Iterator[Installed]:
        newest = sorted(self._folder.glob("*.tar"), key=lambda path: -path.stat().st_mtime)
        for bundle in newest[:_HOLDERS]:
            with suppress(OSError, PartsError):
                lists = _with(bundle, SUFFIX).read_bytes(), _with(bundle, 2 * SUFFIX).read_bytes()
                yield stored_bundle(bundle, *lists)


def check_origin(url: str) -> None:
    """Raise ConfigError unless a URL can be an origin.

    Raises:
        ConfigError: It is not the URL of a folder.
    """
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https", "s3") and bool(parts.netloc)
    except ValueError:
        fits = False
    if not fits or parts.query or parts.fragment:
        raise ConfigError(
            "option --origin", expected="an http, https or s3 URL of a folder", got=without_secrets(url)
        )


def is_below(url: str, origins: tuple[str, ...]) -> bool:
    """Return True if a URL is in one of some folders: same scheme, host and port, and a path below."""
    try:
        wanted = urlsplit(url)
        path = unquote(wanted.path)
        if ".." in path.split("/") or "\\" in path or "%" in path or not url.isprintable():
            return False
        return any(
            (wanted.scheme, wanted.netloc) == (one.scheme, one.netloc)
            and wanted.path.startswith(one.path.rstrip("/") + "/")
            for one in map(urlsplit, origins)
        )
    except ValueError:
        return False


def released(url: str, sha256: str, size_bytes: int, parts: str | None) -> Release:
    """Return what identifies a bundle as a release, whose other fields do not matter to a download."""
    return structs.replace(_ANY, url=url, sha256=sha256, size_bytes=size_bytes, parts=parts)


def shown(release: Release) -> str:
    """Return the URL of a release for the log."""
    return without_secrets(release.url)


def _with(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


_ANY = Release(
    node="mirror",
    model="mirror",
    version=1,
    url="-",
    sha256="0" * 64,
    size_bytes=1,
    released_at_ms=0,
    classes=["a", "b"],
)
