"""The user's folders: for files that can be made or downloaded again, and for all others."""

import os
from pathlib import Path

from schemas.errors import PermanentError

_NO_HOME = Path("/nonexistent")  # of users without one, as in Debian's password file


def home() -> Path:
    """Return the user's home directory; of a user without one, a path at which nothing can be written.

    Containers often run under a number that the password file does not have, and without `HOME`.
    """
    try:
        return Path.home()
    except RuntimeError:
        return _NO_HOME


def default_cache() -> Path:
    """Return `$XDG_CACHE_HOME/gleaner`, or `~/.cache/gleaner`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache") / "gleaner"


def expanded(path: str) -> Path:
    """Return a path with `~` replaced.

    Raises:
        PermanentError: There is no such user, or no home directory.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise PermanentError(
            f"{path} has no home directory", hint="write the whole path, or set HOME"
        ) from None
