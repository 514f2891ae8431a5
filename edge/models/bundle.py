"""Fetch, verify and unpack a model bundle: a tar of one SavedModel. Blocking functions, called in a thread.

The archive is not trusted: only plain files and folders below its root are unpacked, and no more bytes than
the release allows.
"""

import errno
import hashlib
import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import fsspec

from schemas.errors import PermanentError, TransientError
from schemas.messages import Release

SCHEMES = ("file", "http", "https", "s3")
CLASSES_ASSET = "assets/classes.txt"
_CHUNK_BYTES = 1 << 20
_READ_S = 30
_TOTAL_S = 1800
_MAX_MEMBERS = 10_000
# Errors of the archive's names, for example a file where a folder has to be; others are errors of the disk.
_NAME_ERRORS = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)


class BundleError(PermanentError):
    """A bundle that must not be served: its digest, size, archive or content is wrong."""


class FetchError(TransientError):
    """The bundle cannot be downloaded now."""


def fetch(release: Release, target: Path) -> None:
    """Download the bundle to a file and verify its size and digest.

    Raises:
        FetchError: The URL cannot be read now.
        BundleError: The scheme is not supported, or size or digest differ from the release.
    """
    scheme = _scheme(release)
    digest, size_bytes = hashlib.sha256(), 0
    try:
        with fsspec.open(release.url, "rb", **_options(scheme)) as source, target.open("wb") as copy:
            # The bound also holds for a source that is larger than released, or endless.
            while (chunk := source.read(_CHUNK_BYTES)) and size_bytes <= release.size_bytes:
                copy.write(chunk)
                digest.update(chunk)
                size_bytes += len(chunk)
            copy.flush()
            os.fsync(copy.fileno())  # else a power cut could leave a verified bundle with holes
    except Exception as error:  # noqa: BLE001  # every file system of fsspec raises other errors
        raise FetchError(f"cannot download version {release.version} from {release.url}: {error!r}") from None
    if size_bytes != release.size_bytes:
        raise BundleError(f"bundle {release.url}", expected=f"{release.size_bytes} bytes", got=size_bytes)
    if digest.hexdigest() != release.sha256:
        raise BundleError(
            f"bundle {release.url}", expected=f"sha256 {release.sha256}", got=digest.hexdigest()
        )


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
    """Verify that a directory is a SavedModel with the released classes.

    Raises:
        BundleError: It has no `saved_model.pb`, or its own class names differ from the release's.
    """
    if not (directory / "saved_model.pb").is_file():
        raise BundleError(f"the bundle of version {release.version} has no saved_model.pb at its root")
    names = read_class_names(directory)
    if names is not None and list(names) != release.classes:
        raise BundleError(
            f"bundle of version {release.version}", expected=f"classes {release.classes}", got=list(names)
        )


def read_class_names(directory: Path) -> tuple[str, ...] | None:
    """Return the class names in a SavedModel's assets, one per line; None without that asset."""
    try:
        return tuple((directory / CLASSES_ASSET).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError):
        return None


def _scheme(release: Release) -> str:
    try:
        scheme = urlsplit(release.url).scheme
    except ValueError:
        scheme = ""
    if scheme not in SCHEMES:
        raise BundleError(
            f"URL of version {release.version}", expected=f"a scheme of {SCHEMES}", got=release.url
        )
    return scheme


def _options(scheme: str) -> dict[str, object]:
    if scheme not in ("http", "https"):
        return {}
    import aiohttp  # noqa: PLC0415  # slow to import, and needed only for HTTP

    return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=_TOTAL_S, sock_read=_READ_S)}}


def _violated_rule(member: tarfile.TarInfo, number: int, left_bytes: int) -> str | None:
    """Return the rule that a member violates, None if it may be unpacked."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not (member.isreg() or member.isdir()):
        return "plain files below its root"
    if member.size < 0 or left_bytes < 0:  # with a negative size tarfile reads the same header for ever
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
