"""Camera URLs: which part of the specification they are, and whether they are valid."""

from urllib.parse import urlsplit

from device.cameras.base import CameraError
from schemas.text import escaped, without_secrets

_HTTP = ("http", "https")
_VIDEO = ("rtsp", "rtsps", "rtmp")


def scheme_of(text: str) -> str:
    """Return the scheme of a URL in lower case; empty if the text is not a URL."""
    scheme, separator, _ = text.partition("://")
    return scheme.lower() if separator and scheme.isascii() and scheme.isalnum() else ""


def is_http(text: str) -> bool:
    """Return True for an `http://` or `https://` URL."""
    return scheme_of(text) in _HTTP


def is_camera_url(text: str) -> bool:
    """Return True for a URL that specifies a camera without a prefix."""
    return scheme_of(text) in _HTTP + _VIDEO


def check_url(text: str) -> None:
    """Check host and port of a URL, and that it is text: OpenCV crashes on bytes that are not UTF-8.

    Raises:
        CameraError: It has no host or one that no resolver takes, its port is not a number, or it contains
            characters that cannot be printed.
    """
    if not text.isprintable():
        raise CameraError(
            f"camera URL {escaped(without_secrets(text))} contains characters that cannot be printed",
            hint="write them as %XX",
        )
    try:
        parts = urlsplit(text)
        valid = parts.hostname is not None and parts.port != 0 and bool(parts.hostname.encode("idna"))
    except ValueError:  # a port that is not a number, an open bracket, an empty or too long part of a name
        valid = False
    if not valid:
        raise CameraError(
            f"camera URL {without_secrets(text)} has no valid host and port",
            hint="write / ? # and @ in a user name or password as %2F %3F %23 and %40",
        )
