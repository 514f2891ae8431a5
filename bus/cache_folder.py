"""The folder for files that can be made or downloaded again."""

import os
from pathlib import Path


def default_cache() -> Path:
    """Return `$XDG_CACHE_HOME/gleaner`, or `~/.cache/gleaner`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gleaner"
