"""Name the extra that a command needs when a package of it is not installed."""

import sys

from schemas.distribution import install_command
from schemas.errors import PermanentError

_EXTRAS = {
    "device": "device",
    "edge": "edge",
    "mirror": "edge",
    "modelserver": "modelserver",
    "cloud": "cloud",
    "console": "console",
    "gateway": "gateway",
    "deploy": "gateway",
    "notify": "notify",
    "provision": "provision",
    "schema": "demo",
    "demo": "demo",
    "up": "demo",
}
_OURS = ("bus", "cli", "cloud", "console", "demo", "device", "edge", "gleaner", "schemas")


def missing_package(command: str, error: ModuleNotFoundError) -> PermanentError | None:
    """Return the sentence for a package that is not installed; None if a module of ours is missing: a bug.

    Args:
        command: First word of the command, for example `cloud`.
        error: Raised by an import.
    """
    if error.name is None:  # raised by us, with the whole sentence
        return PermanentError(str(error))
    package = error.name.partition(".")[0]
    if package in sys.stdlib_module_names:
        return PermanentError(
            f"cannot run 'gleaner {command}' on this system: its Python has no module {package!r}",
            hint="Gleaner is made for Linux; on Windows install it in WSL 2",
        )
    if package in _OURS or command not in _EXTRAS:
        return None
    return PermanentError(
        f"cannot run 'gleaner {command}': the package {package!r} is not installed",
        hint=f"install it with: {install_command(_EXTRAS[command])}",
    )
