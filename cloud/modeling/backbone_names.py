"""The names of backbones, which can be checked without the seconds that loading TensorFlow takes."""

import re

from schemas.errors import PermanentError

NAMES = (
    "xception",
    "xception-small",
    "compact",
    "efficientnet-lite0",
    "efficientnet-lite0-grid",
    "efficientnet-lite1",
    "efficientnet-lite2",
)
"""Our own, in the order in which a sentence lists them."""

FILE = re.compile(r"(?P<file>.+\.keras)(:(?P<preprocessing>.*))?", re.DOTALL)
"""The name of a user's file."""

OBJECT = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<name>[A-Za-z_]\w*)(:(?P<preprocessing>.*))?", re.DOTALL)
"""The name of an object of a user's module."""


class BackboneUnavailableError(PermanentError):
    """The backbone is unknown, or its weights are not available; the message names what to use instead."""


def check_backbone_name(name: str) -> None:
    """Check that a name is one of ours, or names a file or an object of a module.

    Raises:
        BackboneUnavailableError: no backbone can have that name.
    """
    if not (name in NAMES or FILE.fullmatch(name) or OBJECT.fullmatch(name)):
        raise BackboneUnavailableError("backbone", expected=f"one of {', '.join(NAMES)}", got=repr(name))
