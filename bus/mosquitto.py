"""Where mosquitto comes from: an installed one, else Debian's package unpacked into the user's cache.

The latter needs neither root nor an installation.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import PermanentError

PACKAGES = ("mosquitto", "libcjson1", "libmosquitto1", "libwrap0", "libdlt2")
_INSTALL = "mosquitto: install it with `sudo apt install mosquitto` (or put it on the PATH)"
_APT_S = 120


class BrokerError(PermanentError):
    """There is no broker to be had, or it does not start."""


@dataclass(frozen=True, slots=True)
class Mosquitto:
    """A mosquitto that can be run: the binary and the folders of the libraries that it needs."""

    binary: Path
    libraries: tuple[Path, ...] = ()

    def environment(self) -> dict[str, str]:
        """Return the environment to run it in."""
        if not self.libraries:
            return dict(os.environ)
        return dict(os.environ) | {"LD_LIBRARY_PATH": os.pathsep.join(map(str, self.libraries))}


def default_cache() -> Path:
    """Return where fetched programs are kept: `$XDG_CACHE_HOME/gleaner`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gleaner"


def find(cache: Path | None = None) -> Mosquitto:
    """Return an installed mosquitto, else one unpacked from Debian's package.

    Raises:
        BrokerError: Neither is to be had; the message says what to install.
    """
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    if (installed := shutil.which("mosquitto", path=path)) is not None:
        return Mosquitto(Path(installed))
    folder = (cache or default_cache()) / "mosquitto"
    if not (folder / "usr/sbin/mosquitto").exists():
        _fetch(folder)
    return Mosquitto(folder / "usr/sbin/mosquitto", tuple((folder / "usr/lib").glob("*-linux-gnu*")))


def _fetch(folder: Path) -> None:
    """Download and unpack the packages; the folder appears complete or not at all."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise BrokerError("broker", expected=_INSTALL, got="no mosquitto, and no apt-get to fetch it with")
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        packages = partial / "packages"
        packages.mkdir(parents=True)
        if not _download(packages, []):
            # No package lists, or old ones: fetch lists of our own, which needs no root either.
            lists = _own_lists(partial)
            _run(["apt-get", *lists, "update"], partial)
            if not _download(packages, lists):
                raise BrokerError("broker", expected=_INSTALL, got="apt-get could not download it")
        for package in packages.glob("*.deb"):
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


def _download(packages: Path, options: list[str]) -> bool:
    return _run(["apt-get", *options, "download", *PACKAGES], packages)


def _run(command: list[str], folder: Path) -> bool:
    try:
        done = subprocess.run(  # noqa: S603  # apt-get and dpkg-deb with arguments of our own
            command, cwd=folder, capture_output=True, timeout=_APT_S, check=False
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        raise BrokerError("broker", expected=_INSTALL, got=error) from None
    return done.returncode == 0
