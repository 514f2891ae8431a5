"""The version directories that the model server watches. Blocking functions, called in a thread.

Directories named by a number are versions, and the server serves the newest; other names it ignores. During a
trial it serves two from the folder `trial`. A server that starts meanwhile looks for the newest beside that
folder, and so begins with the version in service.
"""

import os
import shutil
from pathlib import Path

from edge.models.bundle import check, fetch, unpack
from schemas.messages import Release

_INCOMING = "incoming-"
_ASIDE = "aside-"
_TRIAL = "trial"


def bring(release: Release, base: Path) -> None:
    """Fetch, verify and unpack a release beside the versions, for `place`.

    Raises:
        BundleError, FetchError, OSError: As `edge.models.bundle` says; the versions are what they were.
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


def newest(base: Path) -> int | None:
    """Return the version that a server starts with."""
    return max(_versions(base), default=None) if base.is_dir() else None


def trial_folder(base: Path) -> Path:
    """Return the folder from which the versions of a trial are served."""
    return base / _TRIAL


def on_trial(base: Path) -> set[int]:
    """Return the versions of a trial, the one in service among them; none if there is no trial."""
    folder = trial_folder(base)
    return set(_versions(folder)) if folder.is_dir() else set()


def lay_out(champion: int, challenger: int, base: Path) -> None:
    """Put the version in service and one that was brought side by side into the trial's folder.

    It is there complete or not at all.
    """
    partial = base / f"{_INCOMING}{_TRIAL}"
    _remove(partial)
    partial.mkdir()
    _copy(base / str(champion), partial / str(champion))
    _incoming(challenger, base).rename(partial / str(challenger))
    _remove(trial_folder(base))
    partial.rename(trial_folder(base))


def bring_back(version: int, base: Path) -> None:
    """Bring a version from its trial, for `place`; the trial's folder stays as it is."""
    _restore(base)
    _remove(_incoming(version, base))
    _copy(trial_folder(base) / str(version), _incoming(version, base))


def end_trial(base: Path) -> None:
    """Take the trial's folder away; the server has to look elsewhere before that."""
    partial = base / f"{_INCOMING}{_TRIAL}"
    _remove(partial)
    if trial_folder(base).is_dir():
        trial_folder(base).rename(partial)
    _remove(partial)


def _copy(version: Path, target: Path) -> None:
    shutil.copytree(version, target, copy_function=_link)


def _link(source: str, target: str) -> None:
    """Link a file, which costs no room; copy it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


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
