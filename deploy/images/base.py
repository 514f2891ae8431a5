"""The image with which a build starts: Debian's from a registry, or one made here from Debian's packages."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from deploy.images.catalog import native
from deploy.images.engines import Engine, import_commands, relabel_commands

DEBIAN = "docker.io/library/debian:bookworm-slim"
LOCAL = "localhost/gleaner-base:bookworm"
_SUITE = "bookworm"
_PULL_S = 300.0
_MAKE_S = 3600.0
_QUERY_S = 60.0


def find_base(engine: Engine, wanted: str | None, arch: str) -> str:
    """Return the name of an image that is in the engine's store, fetching or making it if needed.

    Unless one is wanted, an engine pulls Debian's image; buildah makes one from Debian's archive and asks
    no registry.

    Raises:
        RuntimeError: it cannot be pulled, and mmdebstrap is not installed.
    """
    name = wanted or (LOCAL if engine is Engine.BUILDAH else DEBIAN)
    if name != LOCAL and (_is_stored(engine, name) or _pulls(engine, name)):
        return name
    if wanted not in {None, LOCAL}:
        raise RuntimeError(f"cannot pull the base image {name}: check its name and the registry")
    if not _is_stored(engine, LOCAL):
        _make(engine)
    if arch == native() or engine is Engine.DOCKER:
        return LOCAL
    if engine is Engine.PODMAN:
        raise RuntimeError(
            f"cannot build for {arch} with podman: use --engine buildah, which shares its store"
        )
    _relabel(f"{LOCAL}-{arch}", arch)
    return f"{LOCAL}-{arch}"


def _is_stored(engine: Engine, name: str) -> bool:
    command = [engine, "inspect", "--type", "image", name]
    return subprocess.run(command, capture_output=True, timeout=_QUERY_S, check=False).returncode == 0  # noqa: S603


def _pulls(engine: Engine, name: str) -> bool:
    """Return True if the image was pulled."""
    done = subprocess.run([engine, "pull", name], capture_output=True, timeout=_PULL_S, check=False)  # noqa: S603
    return done.returncode == 0


def _relabel(name: str, arch: str) -> None:
    """Store the base under another architecture's label, its programs staying this machine's.

    buildah ignores `FROM --platform`: it would look for a base of the architecture of the result. Of
    the base only programs are run, and none of it is in the result.
    """
    for command in relabel_commands(LOCAL, name, arch):
        subprocess.run(command, timeout=_QUERY_S, check=True, capture_output=True)  # noqa: S603


def _make(engine: Engine) -> None:
    """Make Debian's smallest system from its archive and store it as an image."""
    if not shutil.which("mmdebstrap"):
        raise RuntimeError(
            "cannot make a base image: run apt-get install mmdebstrap, or name an image with --base"
        )
    with tempfile.TemporaryDirectory(prefix="gleaner-base-") as folder:
        archive = Path(folder) / "base.tar"
        words = [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            '--aptopt=APT::Sandbox::User "root"',
            *_EXCLUDED,
        ]
        subprocess.run([*words, _SUITE, str(archive)], timeout=_MAKE_S, check=True)  # noqa: S603
        for command in import_commands(engine, archive, LOCAL):
            subprocess.run(command, timeout=_MAKE_S, check=True, capture_output=True)  # noqa: S603


_EXCLUDED = tuple(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info"))
