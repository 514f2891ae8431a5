"""The name under which Gleaner is installed. `gleaner` itself is another project on PyPI."""

import shlex
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

DISTRIBUTION = "gleaner-aiot"
"""Name of the distribution; the command and the imports are named otherwise."""

_FOLDER = DISTRIBUTION.replace("-", "_")
_ORIGIN = "direct_url.json"  # PEP 610; absent after an install from an index


def version() -> str:
    """Return the version of the installed distribution, for example `0.1.0`."""
    # By the name of a folder: `importlib.metadata` loads parsers of configurations and archives.
    prefix, suffix = f"{_FOLDER}-", ".dist-info"
    for folder in sys.path:
        for found in Path(folder).glob(f"{prefix}*{suffix}"):
            return found.name.removeprefix(prefix).removesuffix(suffix)
    from importlib.metadata import version as read  # noqa: PLC0415 - see above

    return read(DISTRIBUTION)


def install_command(extra: str) -> str:
    """Return the command that installs an extra, for example `pip install 'gleaner_aiot-….whl[edge]'`.

    It names the checkout or the wheel from which this installation was made. It never names the distribution
    alone: no package index has it, and a stranger's package of that name there would be installed.
    """
    from importlib.metadata import Distribution, PackageNotFoundError  # noqa: PLC0415 - as in `version`

    try:
        origin = Distribution.from_name(DISTRIBUTION).read_text(_ORIGIN)
    except PackageNotFoundError:  # the sources alone, as in an image
        origin = None
    return _install_from(origin, extra)


def _install_from(origin: str | None, extra: str) -> str:
    """Return the command for an origin as in PEP 610; without one, for a wheel in the working folder."""
    if origin is None:
        return f"pip install {shlex.quote(f'{_wheel_name()}[{extra}]')}"
    found = msgspec.json.decode(origin, type=_Origin)
    path = unquote(urlsplit(found.url).path) if found.url.startswith("file:") else found.url
    editable = "--editable " if found.dir_info.editable else ""
    return f"pip install {editable}{shlex.quote(f'{path}[{extra}]')}"


def _wheel_name() -> str:
    try:
        number = version()
    except ModuleNotFoundError:  # the base of PackageNotFoundError
        number = "VERSION"
    return f"{_FOLDER}-{number}-py3-none-any.whl"


class _Folder(msgspec.Struct, frozen=True):
    editable: bool = False


class _Origin(msgspec.Struct, frozen=True):
    url: str
    dir_info: _Folder = _Folder()
