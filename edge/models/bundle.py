"""A model bundle: fetch it by URL, verify it, unpack it. Blocking functions, called in a thread.

A bundle is a tar of one SavedModel. Nothing in it is trusted: only plain files and folders below its own root
are unpacked, and no more bytes than the release says there are.
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
_MOST_MEMBERS = 10_000
_UNFIT_NAMES = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)


class BundleError(PermanentError):
    """A bundle that must not be served: digest, size, archive or content is wrong."""


class FetchError(TransientError):
    """The bundle is out of reach for now."""


def fetch(release: Release, target: Path) -> None:
    """Copy the bundle to a file and verify its size and digest.

    Raises:
        FetchError: It cannot be read from its URL now.
        BundleError: The URL is of no known kind, or the bytes are not the released ones.
    """
    scheme = _scheme(release)
    digest, size_bytes = hashlib.sha256(), 0
    try:
        with fsspec.open(release.url, "rb", **_options(scheme)) as source, target.open("wb") as copy:
            while (chunk := source.read(_CHUNK_BYTES)) and size_bytes <= release.size_bytes:
                copy.write(chunk)
                digest.update(chunk)
                size_bytes += len(chunk)
            copy.flush()
            os.fsync(copy.fileno())
    except Exception as error:  # noqa: BLE001  # each of fsspec's file systems has errors of its own
        raise FetchError(
            f"release {release.version}", expected=f"{release.url} to be readable", got=repr(error)
        ) from None
    if size_bytes != release.size_bytes:
        raise BundleError(f"bundle {release.url}", expected=f"{release.size_bytes} bytes", got=size_bytes)
    if digest.hexdigest() != release.sha256:
        raise BundleError(
            f"bundle {release.url}", expected=f"sha256 {release.sha256}", got=digest.hexdigest()
        )


def unpack(bundle: Path, directory: Path, *, most_bytes: int) -> None:
    """Unpack a bundle into a new directory.

    Raises:
        BundleError: No tar, or something in it is no plain file below its root, or too large.
        OSError: The disk refused.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    left_bytes = most_bytes
    try:
        with tarfile.open(bundle, "r:") as archive:
            for number, member in enumerate(archive):
                left_bytes -= member.size
                if (wanted := _wanted(member, number, left_bytes)) is not None:
                    raise BundleError(f"bundle {bundle.name}", expected=wanted, got=repr(member.name[:200]))
                _place(archive, member, directory)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise BundleError(f"bundle {bundle.name}", expected="a readable tar", got=error) from None
    except OSError as error:
        if error.errno not in _UNFIT_NAMES:
            raise
        raise BundleError(f"bundle {bundle.name}", expected="names that fit a folder", got=error) from None


def check(directory: Path, release: Release) -> None:
    """Verify that a directory looks like the released SavedModel.

    Raises:
        BundleError: No SavedModel, or its own class names are not those of the release.
    """
    if not (directory / "saved_model.pb").is_file():
        raise BundleError(f"release {release.version}", expected="saved_model.pb at the root", got="none")
    names = read_class_names(directory)
    if names is not None and list(names) != release.classes:
        raise BundleError(
            f"release {release.version}", expected=f"classes {release.classes}", got=list(names)
        )


def read_class_names(directory: Path) -> tuple[str, ...] | None:
    """Return the class names in a SavedModel's assets, one a line, or None if it carries none."""
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
        raise BundleError(f"release {release.version}", expected=f"a URL of {SCHEMES}", got=release.url)
    return scheme


def _options(scheme: str) -> dict[str, object]:
    if scheme not in ("http", "https"):
        return {}
    import aiohttp  # noqa: PLC0415  # only where a release comes over HTTP

    return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=_TOTAL_S, sock_read=_READ_S)}}


def _wanted(member: tarfile.TarInfo, number: int, left_bytes: int) -> str | None:
    """Return what was wanted instead of this member, or None if it may be unpacked."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not (member.isreg() or member.isdir()):
        return "plain files below its root"
    if member.size < 0 or left_bytes < 0:  # a negative size leads tarfile round in circles
        return "no more than the released size"
    if number >= _MOST_MEMBERS:
        return f"at most {_MOST_MEMBERS} files and folders"
    return None


def _place(archive: tarfile.TarFile, member: tarfile.TarInfo, directory: Path) -> None:
    target = directory / member.name
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source = archive.extractfile(member)
    if source is not None:
        with source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy, _CHUNK_BYTES)
