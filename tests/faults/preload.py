"""Faults of disk and clock in single processes, by a small C library that is compiled for the test."""

import errno
import os
import shutil
import struct
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")
_PAGE = struct.Struct("<iiiiq")

DISK_FAULTS = {
    "write-error": {"write": errno.EIO},
    "sync-error": {"sync": errno.EIO},
    "disk-full": {"write": errno.ENOSPC},
    "read-only": {"write": errno.EROFS, "open": errno.EROFS},
}
"""The errors that writing, syncing and opening for writing return."""


def compiler() -> str | None:
    """Return the C compiler, None if there is none."""
    return shutil.which("cc") or shutil.which("gcc")


def build(folder: Path) -> Path | None:
    """Compile the library; None without a compiler."""
    if (program := compiler()) is None:
        return None
    library = folder / "preload.so"
    subprocess.run([program, "-shared", "-fPIC", "-O1", "-o", library, _SOURCE, "-ldl"], check=True)
    return library


class Preload:
    """The faults of one process, which last through its restarts.

    Args:
        library: Compiled by `build`.
        page: File that steers it; written here.
        folder: Folder whose files fail.
    """

    def __init__(self, library: Path, page: Path, folder: Path) -> None:
        self._page = page
        self.environment = {
            "LD_PRELOAD": str(library),
            "GLEANER_FAULTS": str(page),
            "GLEANER_FAULTS_FOLDER": str(folder),
        }
        page.write_bytes(bytes(_PAGE.size))

    def set(self, *, write: int = 0, sync: int = 0, open: int = 0, clock_s: int = 0) -> None:  # noqa: A002  # the call that fails
        """Set the errors of the three calls (0: none) and the offset of the clock in seconds."""
        descriptor = os.open(self._page, os.O_WRONLY)
        try:  # in place: the process has mapped the file
            os.pwrite(descriptor, _PAGE.pack(write, sync, open, 0, clock_s), 0)
        finally:
            os.close(descriptor)
