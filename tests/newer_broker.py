"""A mosquitto newer than Debian 12's, unpacked apart from the system for tests.

`python -m tests.newer_broker` unpacks Debian 13's package and its libraries, C library and loader included,
into the cache, and prints the folder of the program. Nothing is installed. With that folder in front of the
PATH, everything that runs mosquitto runs this one.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bus.broker.locate import Mosquitto
from bus.files.cache_folder import default_cache

_PACKAGES = (
    "mosquitto",
    "libc6",
    "libcap2",
    "libcjson1",
    "libdlt2",
    "libmosquitto1",
    "libssl3t64",
    "libsystemd0",
    "libwebsockets19t64",
    "libwrap0",
    "libzstd1",
    "zlib1g",
)
_SOURCE = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {site} trixie main\n"
_APT_S = 300
_SCRIPT = """\
#!/bin/sh
exec {loader} --library-path {libraries} {binary} "$@"
"""


def newer_mosquitto() -> Mosquitto:
    """Return the newer mosquitto; skip the test where it was not fetched."""
    program = _folder() / "bin/mosquitto"
    if not program.exists():
        pytest.skip("there is no mosquitto of Debian 13; `make test-newer-broker` fetches it")
    return Mosquitto(program)


def fetch() -> Path:
    """Unpack the newer mosquitto unless that was done; return the folder with its program alone."""
    folder = _folder()
    if not (folder / "bin/mosquitto").exists():
        partial = folder.with_name(f"{folder.name}.{os.getpid()}")
        try:
            _unpack(partial)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        _write_script(folder)
    return folder / "bin"


def _folder() -> Path:
    return default_cache() / "mosquitto-debian-13"


def _unpack(folder: Path) -> None:
    for name in ("state/lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True)
    sources = folder / "sources.list"
    sources.write_text(_SOURCE.format(site=_debian_site(folder)), encoding="utf-8")
    options = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "Dir::State": folder / "state",
        "Dir::Cache": folder,
        "APT::Sandbox::User": "root",  # else apt warns that another user cannot write here
    }
    apt = ["apt-get", "--quiet", *(f"--option={name}={value}" for name, value in options.items())]
    _run([*apt, "update"], folder)
    _run([*apt, "download", *_PACKAGES], folder)
    for package in folder.glob("*.deb"):
        _run(["dpkg-deb", "--extract", str(package), str(folder)], folder)
        package.unlink()
    shutil.rmtree(folder / "state")


def _debian_site(folder: Path) -> str:
    """Return the address from which this machine gets Debian."""
    targets = _run(
        ["apt-get", "indextargets", "--format", "$(LABEL) $(SITE)", "Created-By: Packages"], folder
    )
    sites = [line.removeprefix("Debian ") for line in targets.splitlines() if line.startswith("Debian ")]
    if not sites:
        raise SystemExit("cannot fetch mosquitto of Debian 13: this machine gets no packages from Debian")
    return sites[0]


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_APT_S, check=False)
    if done.returncode:
        raise SystemExit(
            f"cannot fetch mosquitto of Debian 13: {' '.join(command[:3])}: {done.stderr.strip()}"
        )
    return done.stdout


def _write_script(folder: Path) -> None:
    (libraries,) = (folder / "usr/lib").glob("*-linux-gnu")
    (loader,) = libraries.glob("ld-linux-*.so.*")
    script = folder / "bin/mosquitto"
    script.parent.mkdir()
    text = _SCRIPT.format(loader=loader, libraries=libraries, binary=folder / "usr/sbin/mosquitto")
    script.write_text(text, encoding="utf-8")
    script.chmod(0o755)


if __name__ == "__main__":
    print(fetch())
