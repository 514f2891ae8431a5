"""The digests of a placed version's files, kept with them to detect files torn by a power loss. Blocking."""

import hashlib
from pathlib import Path

import msgspec
import structlog

from bus.files.atomic_file import write_atomic
from schemas.codec import content_id

log = structlog.get_logger()

NAME = ".manifest"
"""Its name in a version directory. A model server ignores it."""

Entries = dict[str, tuple[int, str]]
"""Size in bytes and SHA-256 of each file, by its path in the version directory."""


def write(directory: Path) -> None:
    """Write the manifest of a version that was just unpacked from a verified bundle.

    Raises:
        OSError: The disk refused.
    """
    entries = {
        str(path.relative_to(directory)): (path.stat().st_size, _sha256(path)) for path in _files(directory)
    }
    encoded = msgspec.json.encode(entries)
    write_atomic(directory / NAME, encoded + b"\n" + content_id(encoded).encode())


Placement = tuple[int, int]
"""What distinguishes a manifest from an earlier one: inode, and time of writing in nanoseconds."""


class Verifier:
    """Compares version directories with their manifests: sizes each time, digests once for each placement."""

    def __init__(self) -> None:
        self._verdicts: dict[Path, tuple[Placement, str | None]] = {}

    def damage(self, directory: Path) -> str | None:
        """Return what is wrong with a version; None if it is intact, has no manifest, or is not there."""
        manifest = directory / NAME
        try:
            entries = _read(manifest)
            status = manifest.stat()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            return f"its manifest cannot be read: {error}"
        if (problem := _wrong_size(directory, entries)) is not None:
            return problem
        # The inode alone is not enough: that of a removed file is used for the next one.
        placement = status.st_ino, status.st_mtime_ns
        known, problem = self._verdicts.get(directory, (None, None))
        if known != placement:
            problem = _wrong_digest(directory, entries)
            self._verdicts[directory] = placement, problem
        return problem


def _read(manifest: Path) -> Entries:
    encoded, _, checksum = manifest.read_bytes().rpartition(b"\n")
    if content_id(encoded).encode() != checksum:
        raise ValueError("it does not have its checksum")
    return msgspec.json.decode(encoded, type=Entries)


def _wrong_size(directory: Path, entries: Entries) -> str | None:
    for name, (size_bytes, _) in entries.items():
        try:
            found = (directory / name).stat().st_size
        except OSError as error:
            return f"its file {name} cannot be read: {error.strerror}"
        if found != size_bytes:
            return f"its file {name} has {found} instead of {size_bytes} bytes"
    return None


def _wrong_digest(directory: Path, entries: Entries) -> str | None:
    for name, (_, digest) in entries.items():
        try:
            found = _sha256(directory / name)
        except OSError as error:
            return f"its file {name} cannot be read: {error.strerror}"
        if found != digest:
            return f"its file {name} has other bytes than were unpacked"
    return None


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file() and path.name != NAME)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
