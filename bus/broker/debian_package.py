"""Download Debian packages and unpack them into a folder, without root and without installing them."""

import os
import shutil
import subprocess
from pathlib import Path

from schemas.errors import PermanentError

_APT_S = 120


class PackageError(PermanentError):
    """A package cannot be downloaded or unpacked."""


def unpack(packages: tuple[str, ...], folder: Path) -> None:
    """Download packages and unpack them; the folder appears complete or not at all.

    Args:
        packages: Names of Debian packages.
        folder: Where to unpack them; replaced if it exists.

    Raises:
        PackageError: This is not Debian, or its archive cannot be reached.
    """
    subject = f"Debian's package {packages[0]} cannot be downloaded"
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise PackageError(f"{subject}: there is no apt-get or dpkg-deb")
    # Next to the folder: a rename is atomic only within a file system. The pid separates concurrent
    # processes.
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        downloads = partial / "packages"
        downloads.mkdir(parents=True)
        if not _download(packages, downloads, []):
            # The system has no package lists, or outdated ones: fetch lists into this folder, without root.
            lists = _local_lists(partial)
            _run(["apt-get", *lists, "update"], partial)
            if not _download(packages, downloads, lists):
                raise PackageError(f"{subject}: apt-get failed")
        for package in downloads.glob("*.deb"):
            _run(["dpkg-deb", "--extract", str(package), str(partial)], partial)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _local_lists(partial: Path) -> list[str]:
    """Return options that make apt-get keep package lists and downloads below a folder."""
    (partial / "state/lists/partial").mkdir(parents=True)
    (partial / "cache/archives/partial").mkdir(parents=True)
    return ["-o", f"Dir::State={partial}/state", "-o", f"Dir::Cache={partial}/cache"]


def _download(packages: tuple[str, ...], folder: Path, options: list[str]) -> bool:
    return _run(["apt-get", *options, "download", *packages], folder)


def _run(command: list[str], folder: Path) -> bool:
    try:
        done = subprocess.run(  # noqa: S603  # apt-get and dpkg-deb, with arguments from this module
            command, cwd=folder, capture_output=True, timeout=_APT_S, check=False
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        raise PackageError(f"cannot run {command[0]}: {error}") from None
    return done.returncode == 0
