"""Read what is in an address: what cannot be a number or an id leads nowhere."""

import re

from starlette.exceptions import HTTPException
from starlette.requests import Request

_MAX_DIGITS = 16
"""Of a number: `int` refuses very long ones, and the databases those beyond 64 bits."""
_ID = re.compile(r"[0-9a-f]{32}")


def whole_number(text: str) -> int | None:
    """Return a number without a sign, None for any other text."""
    is_number = text.isdecimal() and text.isascii() and len(text) <= _MAX_DIGITS
    return int(text) if is_number else None


def number_in(request: Request, name: str) -> int:
    """Return a number of the path; another text is a page that does not exist."""
    found = whole_number(request.path_params[name])
    if found is None:
        raise HTTPException(404)
    return found


def is_id(text: str) -> bool:
    """Return whether a text can be the id of a photo or dead letter."""
    return _ID.fullmatch(text) is not None


def id_in(request: Request, name: str = "photo_id") -> str:
    """Return an id of the path; another text is a page that does not exist."""
    found: str = request.path_params[name]
    if not is_id(found):
        raise HTTPException(404)
    return found
