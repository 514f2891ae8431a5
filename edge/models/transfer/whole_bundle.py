"""Download a bundle as a whole, and verify it. Blocking."""

import hashlib
from pathlib import Path

from bus.http_source import ANYWHERE, Reach
from edge.models.bundle import BundleError
from edge.models.transfer.bundle_source import (
    Abandoned,
    Source,
    Traffic,
    chunks,
    disk_errors,
    fetch_errors,
    open_source,
    scheme_of,
    sync,
    writing,
)
from schemas.messages import Release
from schemas.text import without_secrets


def fetch(
    release: Release,
    target: Path,
    abandoned: Abandoned = lambda: False,
    traffic: Traffic | None = None,
    reach: Reach = ANYWHERE,
) -> None:
    """Download the bundle to a file and verify its size and digest.

    Args:
        release: What to download.
        target: The file to write.
        abandoned: Asked with each piece; True ends the download.
        traffic: Counts its bytes.
        reach: How an HTTP server is reached.

    Raises:
        FetchError: The URL cannot be read now, is too slow, or the download was abandoned.
        DiskError: The file cannot be written.
        BundleError: The scheme is not supported, or size or digest differ from the release.
    """
    scheme_of(release)
    digest, size_bytes = hashlib.sha256(), 0
    with fetch_errors(release), open_source(release.url, reach=reach) as source, writing(target) as copy:
        _check_size(release, _stated_size(source))
        for chunk in chunks(source, release.size_bytes, traffic or Traffic(), abandoned):
            with disk_errors(target):
                copy.write(chunk)
            digest.update(chunk)
            size_bytes += len(chunk)
        sync(copy, target)
    _check_size(release, size_bytes)
    if digest.hexdigest() != release.sha256:
        raise BundleError(
            f"bundle {without_secrets(release.url)}",
            expected=f"sha256 {release.sha256}",
            got=digest.hexdigest(),
        )


def _check_size(release: Release, size_bytes: int | None) -> None:
    if size_bytes is not None and size_bytes != release.size_bytes:
        raise BundleError(
            f"bundle {without_secrets(release.url)}", expected=f"{release.size_bytes} bytes", got=size_bytes
        )


def _stated_size(source: Source) -> int | None:
    """Return the size of a source before it is read, None if it is unknown."""
    size = getattr(source, "size_bytes", None) or getattr(source, "size", None)
    return size if isinstance(size, int) else None
