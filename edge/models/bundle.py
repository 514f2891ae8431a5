"""Unpack and check a model bundle: a tar of one SavedModel. Blocking functions, called in a thread.

The archive is not trusted: only plain files and folders below its root are unpacked, and no more bytes than
the release allows.
"""

import errno
import shutil
import tarfile
from pathlib import Path, PurePosixPath

from schemas.errors import PermanentError
from schemas.groups.heads import GroupHeadsError, read_heads
from schemas.messages import Release
from schemas.text import is_unicode

CLASSES_ASSET = "assets/classes.txt"
_CHUNK_BYTES = 1 << 20
_MAX_MEMBERS = 10_000
# Errors of the archive's names, for example a file where a folder has to be; others are errors of the disk.
_NAME_ERRORS = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)


class BundleError(PermanentError):
    """A bundle that must not be served: its digest, size, archive or content is wrong."""


def unpack(bundle: Path, directory: Path, *, most_bytes: int) -> None:
    """Unpack a bundle into a new directory.

    Args:
        bundle: The tar file.
        directory: Replaced if it exists.
        most_bytes: Upper limit of the sum of the files' sizes.

    Raises:
        BundleError: Not a tar, a member is not a plain file or folder below the root, or too large.
        OSError: The disk refused.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    left_bytes = most_bytes
    try:
        with tarfile.open(bundle, "r:") as archive:  # no compression, so no decompression bomb
            for number, member in enumerate(archive):
                left_bytes -= member.size  # checked before anything of the member is written
                if (rule := _violated_rule(member, number, left_bytes)) is not None:
                    raise BundleError(f"bundle {bundle.name}", expected=rule, got=repr(member.name[:200]))
                _extract(archive, member, directory)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise BundleError(f"bundle {bundle.name}", expected="a readable tar", got=error) from None
    except OSError as error:
        if error.errno not in _NAME_ERRORS:
            raise
        raise BundleError(f"bundle {bundle.name} has names that cannot be in one folder: {error}") from None


def check(directory: Path, release: Release) -> None:
    """Verify that a directory is a SavedModel with the released classes, and that its heads are for them.

    Raises:
        BundleError: It has no `saved_model.pb`, its own class names differ from the release's, or the heads
            of groups cannot be used.
    """
    if not (directory / "saved_model.pb").is_file():
        raise BundleError(f"the bundle of version {release.version} has no saved_model.pb at its root")
    names = read_class_names(directory)
    if names is not None and list(names) != release.classes:
        raise BundleError(
            f"bundle of version {release.version}", expected=f"classes {release.classes}", got=list(names)
        )
    try:
        heads = read_heads(directory)
    except GroupHeadsError as error:
        raise BundleError(f"bundle of version {release.version}: {error}") from None
    if heads is not None and heads.classes != release.classes:
        raise BundleError(
            f"heads of groups of version {release.version}",
            expected=f"classes {release.classes}",
            got=heads.classes,
        )


def read_class_names(directory: Path) -> tuple[str, ...] | None:
    """Return the class names in a SavedModel's assets, one per line; None without that asset."""
    try:
        return tuple((directory / CLASSES_ASSET).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError):
        return None


def _violated_rule(member: tarfile.TarInfo, number: int, left_bytes: int) -> str | None:
    """Return the rule that a member violates, None if it may be unpacked."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not (member.isreg() or member.isdir()):
        return "plain files below its root"
    if not is_unicode(member.name):  # its manifest is JSON
        return "names in UTF-8"
    if member.size < 0 or left_bytes < 0:  # with a negative size tarfile reads the same header endlessly
        return "no more than the released size"
    if number >= _MAX_MEMBERS:
        return f"at most {_MAX_MEMBERS} files and folders"
    return None


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, directory: Path) -> None:
    target = directory / member.name  # mode and owner of the member are ignored
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source = archive.extractfile(member)
    if source is not None:
        with source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy, _CHUNK_BYTES)
