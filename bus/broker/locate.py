"""Where mosquitto comes from: an installed one, else Debian's package unpacked into the user's cache.

The latter needs neither root nor an installation.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from bus.broker.debian_package import PackageError, unpack
from schemas.errors import PermanentError

PACKAGES = ("mosquitto", "libcjson1", "libmosquitto1", "libwrap0", "libdlt2")
_INSTALL = "mosquitto: install it with `sudo apt install mosquitto` (or put it on the PATH)"


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


def find_mosquitto(cache: Path | None = None) -> Mosquitto:
    """Return an installed mosquitto, else one unpacked from Debian's package.

    Raises:
        BrokerError: Neither is to be had; the message says what to install.
    """
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    if (installed := shutil.which("mosquitto", path=path)) is not None:
        return Mosquitto(Path(installed))
    folder = (cache or default_cache()) / "mosquitto"
    if not (folder / "usr/sbin/mosquitto").exists():
        try:
            unpack(PACKAGES, folder)
        except PackageError as error:
            raise BrokerError("broker", expected=_INSTALL, got=error) from None
    return Mosquitto(folder / "usr/sbin/mosquitto", tuple((folder / "usr/lib").glob("*-linux-gnu*")))
