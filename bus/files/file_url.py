"""Paths of file:// URLs, the inverse of `Path.as_uri()`."""

import os
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from schemas.errors import PermanentError

_CONTROL = frozenset(map(chr, (*range(32), 127)))


def path_of(url: str) -> Path:
    """Return the path that a file:// URL names, with any bytes in it.

    Raises:
        PermanentError: It names another host, or no absolute path, has a query or fragment, or a control
            character that is not escaped.
    """
    parts = urlsplit(url if _CONTROL.isdisjoint(url) else "")  # it would leave line breaks out
    path = Path(os.fsdecode(unquote_to_bytes(parts.path)))
    on_this_host = parts.scheme == "file" and parts.netloc.lower() in ("", "localhost")
    if on_this_host and path.is_absolute() and "\0" not in str(path) and not (parts.query or parts.fragment):
        return path
    raise PermanentError(
        "URL",
        expected="file:// and an absolute path, in which %3F stands for ?, %23 for # and %25 for %",
        got=url,
    )
