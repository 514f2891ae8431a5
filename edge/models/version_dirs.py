"""The version directories of one model. Blocking functions, called in a thread.

    <base>/7             a version; the model server watches these and loads the newest
    <base>/7/.manifest   size and digest of each file
    <base>/7/.parts      parts that the next download can use
    <base>/7/.unproven   activated, no verdict yet; holds the bundle's sha256
    <base>/incoming-8    fetched and verified, not served yet
    <base>/aside-9       stepped aside while an older version is activated; comes back if that fails
    <base>/trial/7, 8    the canary folder: champion and challenger, served from there during a canary

The model server ignores names that are not numbers. One that restarts during a canary loads the newest
version of `<base>`: the champion. All changes are renames, so a killed process leaves the old or the new
state; what is renamed was synced before, so a power loss does too.
"""

import os
import shutil
from pathlib import Path

from bus.files.atomic_file import sync_folder, sync_tree, write_atomic
from edge.models import manifest
from edge.models.bundle import check, unpack
from edge.models.transfer import installed_parts
from edge.models.transfer.bundle_source import Abandoned, FetchError, Traffic
from edge.models.transfer.download import fetch_bundle
from edge.models.transfer.mirror_client import SiteMirror
from schemas.messages import Release

_INCOMING = "incoming-"
_ASIDE = "aside-"
_UNPROVEN = ".unproven"
_CANARY = "trial"  # a name on disk: nodes that are upgraded during a canary have this folder


def download(
    release: Release,
    base: Path,
    abandoned: Abandoned = lambda: False,
    traffic: Traffic | None = None,
    *,
    mirror: SiteMirror | None = None,
) -> None:
    """Fetch, verify and unpack a release next to the served versions.

    Args:
        release: What to fetch.
        base: The model's folder.
        abandoned: Asked during the download; True ends it.
        traffic: Counts the bytes.
        mirror: Is asked first.

    Raises:
        BundleError, FetchError, DiskError, OSError: The served versions are unchanged.
    """
    base.mkdir(parents=True, exist_ok=True)
    bundle, unpacked = base / f"{_INCOMING}{release.version}.tar", _incoming(release.version, base)
    for leftover in base.glob(f"{_INCOMING}*"):  # of a killed process, or of a release that was replaced
        if leftover != bundle:  # its parts are used if they are right
            _remove(leftover)
    try:
        installed = installed_parts.read_installed(_installed(base))
        lists = fetch_bundle(release, bundle, installed, traffic or Traffic(), abandoned, mirror=mirror)
        _unpack(release, bundle, unpacked)
        if lists is not None:  # not in the manifest: without it the next download is larger, no more
            installed_parts.write_layout(unpacked, bundle, lists)
        sync_tree(unpacked)  # before any name that is believed points to it
    except FetchError:  # what has arrived stays for the next attempt
        raise
    except BaseException:
        _remove(unpacked)
        bundle.unlink(missing_ok=True)
        raise
    bundle.unlink(missing_ok=True)


def _unpack(release: Release, bundle: Path, directory: Path) -> None:
    unpack(bundle, directory, most_bytes=release.size_bytes)
    check(directory, release)
    for ours in (_UNPROVEN, manifest.NAME, installed_parts.NAME):  # not the bundle's
        _remove(directory / ours)
    manifest.write(directory)


def _installed(base: Path) -> list[Path]:
    """Return the version directories, the newest first."""
    found = {**_versions(base), **(_versions(canary_folder(base)) if canary_folder(base).is_dir() else {})}
    return [found[number] for number in sorted(found, reverse=True)]


def restore(version: int, base: Path) -> None:
    """Copy a version from the canary folder, for `activate`; the canary folder is unchanged."""
    _remove(_incoming(version, base))
    _copy(canary_folder(base) / str(version), _incoming(version, base))
    sync_tree(_incoming(version, base))


def is_fetched(version: int, base: Path) -> bool:
    """Return True if a version lies unpacked for `activate` or `stage_canary`, perhaps in part."""
    return _incoming(version, base).is_dir()


def activate(version: int, base: Path, *, unproven_sha256: str | None) -> None:
    """Make a fetched version the newest; versions with a higher number step aside.

    Args:
        version: The fetched version.
        base: The model's folder. No other version in it is unproven.
        unproven_sha256: Digest of its bundle, None if it has passed its smoke test as a challenger.
    """
    for aside in base.glob(f"{_ASIDE}*"):  # of a proven activation: a rollback must not return to it
        _remove(aside)
    if unproven_sha256 is not None:  # before the rename, so that it is in place with the mark or not at all
        write_atomic(_incoming(version, base) / _UNPROVEN, unproven_sha256.encode())
    _discard(base / str(version))
    _incoming(version, base).rename(base / str(version))
    # Only now: before the new version is in place, the server would have none to load.
    for number, path in _versions(base).items():
        if number > version:
            path.rename(base / f"{_ASIDE}{path.name}")
    sync_folder(base)  # before the record of it


def rollback(version: int, base: Path) -> None:
    """Undo `activate`: versions that stepped aside come back, then the version is removed."""
    for aside in base.glob(f"{_ASIDE}*"):
        original = base / aside.name.removeprefix(_ASIDE)
        _remove(original)
        aside.rename(original)
    _discard(base / str(version))  # last: the server has another version to load at any moment
    sync_folder(base)


def displace(version: int, base: Path) -> None:
    """Remove a version whose files are damaged, and its copy in a canary folder, which has the same files."""
    _discard(base / str(version))
    _discard(canary_folder(base) / str(version))
    sync_folder(base)


def revert(base: Path) -> frozenset[int]:
    """Undo an activation without a verdict; returns the versions that were removed."""
    removed = frozenset(number for number, _ in unproven(base))
    for number in removed:
        rollback(number, base)
    return removed


def unproven(base: Path) -> frozenset[tuple[int, str]]:
    """Return each version that was activated and has no verdict, with the sha256 of its bundle."""
    marks = ((number, path / _UNPROVEN) for number, path in _versions(base).items()) if base.is_dir() else ()
    # A damaged digest is that of no release, so the version is reverted.
    return frozenset(
        (number, mark.read_text(encoding="ascii", errors="replace"))
        for number, mark in marks
        if mark.is_file()
    )


def set_proven(version: int, base: Path) -> None:
    """Accept an activated version."""
    (base / str(version) / _UNPROVEN).unlink(missing_ok=True)


def prune(version: int, base: Path, *, kept: int) -> None:
    """Remove what stepped aside, what was fetched for releases that were replaced, and old versions.

    Args:
        version: The version in service.
        base: The model's folder.
        kept: How many versions up to this one stay, itself included.
    """
    for leftover in _leftovers(base):
        _remove(leftover)
    older = {number: path for number, path in _versions(base).items() if number <= version}
    for number in sorted(older, reverse=True)[kept:]:
        _discard(older[number])


def versions(base: Path) -> frozenset[int]:
    """Return the versions that the model server watches."""
    return frozenset(_versions(base)) if base.is_dir() else frozenset()


def newest(base: Path) -> int | None:
    """Return the version that a model server loads when it starts, None without versions."""
    return max(versions(base), default=None)


def has_leftovers(base: Path) -> bool:
    """Return True if anything lies there that no version in service needs: see `prune`."""
    return bool(_leftovers(base))


def canary_folder(base: Path) -> Path:
    """Return the folder with both versions of a canary."""
    return base / _CANARY


def canary_versions(base: Path) -> frozenset[int]:
    """Return the versions in the canary folder, the champion among them; empty without a canary."""
    return versions(canary_folder(base))


def stage_canary(champion: int, challenger: int, base: Path) -> None:
    """Put the champion and a fetched challenger into the canary folder, complete or not at all."""
    partial = base / f"{_INCOMING}{_CANARY}"
    _remove(partial)
    partial.mkdir()
    _copy(base / str(champion), partial / str(champion))
    _incoming(challenger, base).rename(partial / str(challenger))
    sync_tree(partial)
    _remove(canary_folder(base))  # a folder cannot be renamed over one that is not empty
    partial.rename(canary_folder(base))
    sync_folder(base)


def remove_canary(base: Path) -> None:
    """Remove the canary folder. The model server has to serve another folder before."""
    partial = base / f"{_INCOMING}{_CANARY}"
    _remove(partial)
    if canary_folder(base).is_dir():
        canary_folder(base).rename(partial)  # so that a kill in the middle leaves no half canary folder
    _remove(partial)


def _copy(version: Path, target: Path) -> None:
    shutil.copytree(version, target, copy_function=_link)


def _link(source: str, target: str) -> None:
    """Hard-link a file, which takes no space; copy it on file systems without links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _leftovers(base: Path) -> list[Path]:
    return [*base.glob(f"{_ASIDE}*"), *base.glob(f"{_INCOMING}*")]


def _incoming(version: int, base: Path) -> Path:
    return base / f"{_INCOMING}{version}"


def _versions(folder: Path) -> dict[int, Path]:
    return {int(path.name): path for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()}


def _discard(version: Path) -> None:
    """Remove a version directory; a kill in the middle leaves it whole, or without a number as its name."""
    discarded = version.with_name(f"{_INCOMING}{version.name}-removed")
    _remove(discarded)
    if version.is_dir():
        version.rename(discarded)
    _remove(discarded)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
