"""Fetch a bundle the cheapest way that works. Blocking."""

from collections.abc import Sequence
from pathlib import Path

import structlog

from edge.models.transfer.bundle_source import Abandoned, Traffic
from edge.models.transfer.by_parts import fetch_by_parts
from edge.models.transfer.installed_parts import Lists, read_installed
from edge.models.transfer.whole_bundle import fetch
from schemas.messages import Release
from schemas.parts import PartsError

log = structlog.get_logger()


def fetch_bundle(
    release: Release, target: Path, installed: Sequence[Path], traffic: Traffic, abandoned: Abandoned
) -> Lists | None:
    """Fetch and verify the bundle of a release: by parts if it has some, else or if that fails as a whole.

    Args:
        release: What to fetch.
        target: The file; parts that an interrupted download left in it are used.
        installed: Version directories of which parts are used.
        traffic: Counts the bytes.
        abandoned: Asked during the download; True ends it.

    Returns:
        The lists of its parts, None if it was fetched as a whole.

    Raises:
        FetchError, DiskError, BundleError: As `fetch` does.
    """
    if release.parts is not None:
        try:
            return fetch_by_parts(release, target, list(read_installed(installed)), traffic, abandoned)
        except PartsError as error:
            log.warning("release.parts_unusable", version=release.version, reason=str(error))
            traffic.reused_bytes = 0  # what was put together is fetched after all
    fetch(release, target, abandoned, traffic)
    return None
