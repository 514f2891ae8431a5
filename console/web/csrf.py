"""Mask the token that each change must carry, so that compressed pages do not betray it.

The length of a compressed page reveals how much of what an attacker had it repeat, such as a filter in its
address, is in the page's secrets too (BREACH). The token is the only secret of a page; it has another random
mask in each answer, so that no guess is ever nearer than another one.
"""

import base64
import binascii
import secrets


def masked(token: str) -> str:
    """Return a random mask, and the token under it, as text for a form or header."""
    mask = secrets.token_bytes(len(token.encode()))
    return base64.urlsafe_b64encode(mask + _xor(mask, token.encode())).decode()


def is_token(text: str, token: str) -> bool:
    """Return whether a text is the token under any mask."""
    try:
        sent = base64.urlsafe_b64decode(text.encode())
    except (binascii.Error, ValueError):
        return False
    half, odd = divmod(len(sent), 2)
    return not odd and secrets.compare_digest(_xor(sent[:half], sent[half:]), token.encode())


def _xor(mask: bytes, value: bytes) -> bytes:
    return bytes(one ^ other for one, other in zip(mask, value, strict=True))
