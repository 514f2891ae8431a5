"""The version directories that the model server watches. Blocking functions, called in a thread.

Directories named by a number are versions, and the server serves the newest; other names it ignores.
"""

import shutil
from pathlib import Path

from edge.bundle import check, fetch, unpack
from schemas.messages import Release

_INCOMING = "incoming-"
_ASIDE = "aside-"


def bring(release: Release, base: Path) -> None:
    """Fetch, verify and unpack a release beside the versions, for `place`.

    Raises:
        BundleError, FetchError, OSError: As `edge.bundle` says; the versions are what they were.
    """
    base.mkdir(parents=True, exist_ok=True)
    _restore(base)
    for left in base.glob(f"{_INCOMING}*"):  # by a run that was killed
        _remove(left)
    bundle, partial = base / f"{_INCOMING}{release.version}.tar", _incoming(release.version, base)
    try:
        fetch(release, bundle)
        unpack(bundle, partial, most_bytes=release.size_bytes)
        check(partial, release)
    except BaseException:
        _remove(partial)
        raise
    finally:
        bundle.unlink(missing_ok=True)


def place(version: int, base: Path) -> None:
    """Make a version that was brought the newest; those with a higher number step aside.

    The new one is in place before the others go, so that the server has one to serve at any moment.
    """
    _remove(base / str(version))
    _incoming(version, base).rename(base / str(version))
    for number, path in _versions(base).items():
        if number > version:
            path.rename(base / f"{_ASIDE}{path.name}")


def displace(version: int, base: Path) -> None:
    """Undo `place`: what stepped aside comes back, then the version goes."""
    _restore(base)
    _remove(base / str(version))


def settle(version: int, base: Path, *, kept: int) -> None:
    """Forget what stepped aside, and all older versions but the newest, `kept` in all."""
    for aside in base.glob(f"{_ASIDE}*"):
        _remove(aside)
    versions = _versions(base)
    for number in sorted((other for other in versions if other <= version), reverse=True)[kept:]:
        _remove(versions[number])


def _restore(base: Path) -> None:
    for aside in base.glob(f"{_ASIDE}*"):
        place_of_old = base / aside.name.removeprefix(_ASIDE)
        _remove(place_of_old)
        aside.rename(place_of_old)


def _incoming(version: int, base: Path) -> Path:
    return base / f"{_INCOMING}{version}"


def _versions(base: Path) -> dict[int, Path]:
    return {int(path.name): path for path in base.iterdir() if path.name.isdecimal() and path.is_dir()}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
