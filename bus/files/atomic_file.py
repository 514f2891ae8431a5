"""Whole-file atomic writes, durable across power loss."""

import contextlib
import os
from pathlib import Path


def write_atomic(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace a file so that readers see the old or the new content, never a part.

    When this returns, content and name are on the disk: the file is synced before the rename, and its folder
    after it. Missing parent folders are created.

    Args:
        path: The file. `<name>.tmp` in its folder is overwritten; concurrent writers of one path need a lock.
        content: The content.
        mode: Permission bits of the new file, before the umask.

    Raises:
        OSError: The file cannot be written; its previous content is intact.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.tmp")
    partial.unlink(missing_ok=True)  # a killed writer may have left it with other permissions
    # O_EXCL with the mode: a secret is never readable by others, not even while it is written.
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)  # on a full disk it would take the last of the room
        raise
    sync_folder(path.parent)  # without this a power cut can bring the old name back


def sync_file(path: Path) -> None:
    """Sync the content of a file that was written and closed, by this process or another library.

    Raises:
        OSError: The disk refused.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # fsync flushes the file, whichever descriptor wrote it.
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that names created, renamed or removed in it survive a power cut.

    Raises:
        OSError: The folder does not exist or cannot be synced.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Sync all files and folders below a folder, and the folder itself.

    Raises:
        OSError: The disk refused.
    """
    for path, _, files in os.walk(folder, topdown=False):  # files before the folders that name them
        for name in files:
            sync_file(Path(path) / name)
        sync_folder(Path(path))


def make_private(path: Path) -> None:
    """Let only its owner read and write a file, if it exists and is ours."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
