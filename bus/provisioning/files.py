"""Files of a site: readable for their owner alone, whole or not at all."""

from collections.abc import Callable
from pathlib import Path

from bus.files.atomic_file import write_atomic


def make_folder(path: Path) -> Path:
    """Create a folder and its parents with mode 0700."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(mode=0o700)
    return path


def read_or_create(path: Path, make: Callable[[], bytes]) -> bytes:
    """Return the content of a file, which is created first if it does not exist."""
    if not path.exists():
        write(path, make())
    return path.read_bytes()


def write(path: Path, content: bytes) -> None:
    """Write a file with mode 0600, complete or not at all; one that has this content is left alone."""
    make_folder(path.parent)  # write_atomic would create it with the default mode
    if not path.exists() or path.read_bytes() != content:
        write_atomic(path, content, mode=0o600)
