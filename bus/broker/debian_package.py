"""Programs out of Debian's packages, unpacked into a folder: needs neither root nor an installation."""

import os
import shutil
import subprocess
from pathlib import Path

from schemas.errors import PermanentError

_APT_S = 120


class PackageError(PermanentError):
    """A package is not to be had."""


def unpack(packages: tuple[str, ...], folder: Path) -> None:
    """Download packages and unpack them; the folder appears complete or not at all.

    Raises:
        PackageError: This is no Debian, or its archive cannot be reached.
    """
    subject = f"Debian's package {packages[0]}"
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise PackageError(subject, expected="apt-get to fetch it with", got="none")
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        downloads = partial / "packages"
        downloads.mkdir(parents=True)
        if not _download(packages, downloads, []):
            # No package lists, or old ones: fetch lists of our own, which needs no root either.
            lists = _own_lists(partial)
            _run(["apt-get", *lists, "update"], partial)
            if not _download(packages, downloads, lists):
                raise PackageError(subject, expected="a download", got="apt-get could not download it")
        for package in downloads.glob("*.deb"):
            _run(["dpkg-deb", "--extract", str(package), str(partial)], partial)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _own_lists(partial: Path) -> list[str]:
    (partial / "state/lists/partial").mkdir(parents=True)
    (partial / "cache/archives/partial").mkdir(parents=True)
    return ["-o", f"Dir::State={partial}/state", "-o", f"Dir::Cache={partial}/cache"]


def _download(packages: tuple[str, ...], folder: Path, options: list[str]) -> bool:
    return _run(["apt-get", *options, "download", *packages], folder)


def _run(command: list[str], folder: Path) -> bool:
    try:
        done = subprocess.run(  # noqa: S603  # apt-get and dpkg-deb with arguments of our own
            command, cwd=folder, capture_output=True, timeout=_APT_S, check=False
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        raise PackageError(command[0], expected="to end well", got=error) from None
    return done.returncode == 0
