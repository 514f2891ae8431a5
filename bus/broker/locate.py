"""Find mosquitto: an installed one, otherwise Debian's package, unpacked into the user's cache."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from bus.broker.debian_package import PackageError, unpack
from bus.files.cache_folder import default_cache
from schemas.errors import PermanentError

PACKAGES = ("mosquitto", "libcjson1", "libmosquitto1", "libwrap0", "libdlt2")
_BINARY = "usr/sbin/mosquitto"


class BrokerError(PermanentError):
    """mosquitto is not available, or does not start."""


@dataclass(frozen=True, slots=True)
class Mosquitto:
    """A mosquitto binary, and folders with shared libraries that it needs."""

    binary: Path
    libraries: tuple[Path, ...] = ()

    def environment(self) -> dict[str, str]:
        """Return the environment variables to run it with."""
        if not self.libraries:
            return dict(os.environ)
        return dict(os.environ) | {"LD_LIBRARY_PATH": os.pathsep.join(map(str, self.libraries))}


def is_installed() -> bool:
    """Return True if `find_mosquitto` can work without a download."""
    return _on_the_path() is not None or (_unpacked(None) / _BINARY).exists()


def _on_the_path() -> str | None:
    # Debian installs mosquitto to /usr/sbin, which is not on the PATH of ordinary users.
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    return shutil.which("mosquitto", path=path)


def _unpacked(cache: Path | None) -> Path:
    return (cache or default_cache()) / "mosquitto"


def find_mosquitto(cache: Path | None = None) -> Mosquitto:
    """Return an installed mosquitto, otherwise one unpacked from Debian's package; needs no root.

    Args:
        cache: Folder to unpack into; `default_cache()` if None.

    Raises:
        BrokerError: mosquitto is not installed and cannot be downloaded.
    """
    if (installed := _on_the_path()) is not None:
        return Mosquitto(Path(installed))
    folder = _unpacked(cache)
    if not (folder / _BINARY).exists():
        try:
            unpack(PACKAGES, folder)
        except PackageError as error:
            raise BrokerError(
                f"mosquitto is not installed, and {error}",
                hint="install it with `sudo apt install mosquitto`, or put it on the PATH",
            ) from None
    return Mosquitto(folder / _BINARY, tuple((folder / "usr/lib").glob("*-linux-gnu*")))
