"""The name under which Gleaner is installed. `gleaner` itself is another project on PyPI."""

from importlib.metadata import version as _version

DISTRIBUTION = "gleaner-aiot"
"""Name of the distribution; the command and the imports are named otherwise."""


def version() -> str:
    """Return the version of the installed distribution, for example `0.1.0`."""
    return _version(DISTRIBUTION)


def install_command(extra: str) -> str:
    """Return the command that installs an extra, for example `pip install 'gleaner-aiot[edge]'`."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"
