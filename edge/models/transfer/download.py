"""Fetch a bundle the cheapest way that works. Blocking."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog

from bus.http_source import ANYWHERE, Reach
from edge.models.bundle import BundleError
from edge.models.transfer.bundle_source import Abandoned, FetchError, Traffic, scheme_of
from edge.models.transfer.by_parts import fetch_by_parts
from edge.models.transfer.installed_parts import Installed, Lists
from edge.models.transfer.mirror_client import SiteMirror, at_mirror
from edge.models.transfer.whole_bundle import fetch
from schemas.messages import Release
from schemas.parts import PartsError

log = structlog.get_logger()


def fetch_bundle(
    release: Release,
    target: Path,
    installed: Iterable[Installed],
    traffic: Traffic,
    abandoned: Abandoned,
    *,
    mirror: SiteMirror | None = None,
) -> Lists | None:
    """Fetch and verify the bundle of a release: by parts if it has some, else or if that fails as a whole.

    Args:
        release: What to fetch.
        target: The file; parts that an interrupted download left in it are used.
        installed: Bundles of which parts are used.
        traffic: Counts the bytes.
        abandoned: Asked during the download; True ends it.
        mirror: Is asked first; what it gives is verified like everything else.

    Returns:
        The lists of its parts, None if it was fetched as a whole.

    Raises:
        FetchError, DiskError, BundleError: As `fetch` does.
    """
    held = list(installed) if release.parts is not None else []
    if mirror is not None and scheme_of(release) != "file":  # a file is at this site already
        try:
            reach = mirror.reach()
            there = at_mirror(mirror.url, release, abandoned, reach)
            return _fetch(there, target, held, traffic, abandoned, reach=reach)
        except (FetchError, BundleError) as error:
            if abandoned():
                raise
            log.warning("release.mirror_unusable", version=release.version, reason=str(error))
            traffic.reused_bytes = 0
    return _fetch(release, target, held, traffic, abandoned)


def _fetch(
    release: Release,
    target: Path,
    installed: Sequence[Installed],
    traffic: Traffic,
    abandoned: Abandoned,
    *,
    reach: Reach = ANYWHERE,
) -> Lists | None:
    if release.parts is not None:
        try:
            return fetch_by_parts(release, target, installed, traffic, abandoned, reach=reach)
        except PartsError as error:
            log.warning("release.parts_unusable", version=release.version, reason=str(error))
            traffic.reused_bytes = 0  # what was put together is fetched after all
    fetch(release, target, abandoned, traffic, reach)
    return None
