"""Escape text from outside, such as reasons, labels and file names, before it is printed or logged.

A terminal obeys control characters: text that contains them could set the window's title, hide or reorder
other text, or pretend to be another line. So everything that is not printable is shown as its escape
sequence.
"""

import re
from collections.abc import Sequence

import msgspec

MAX_SHOWN_CHARS = 16_384
"""Longest text that is shown whole; a message for people is far below."""

_SHOWN_VALUES = ("channel", "subtype", "stream", "cmd", "action", "profile", "resolution", "camera")
_HIDDEN = "***"
_SECRET_FIELD = re.compile(r"(?i)((?:use|usr|log|pas|pwd|psw|token|key|secret|auth|sig)\w*=)[^&/;]+")
# Some cameras take both in the path: /user_admin_password_12345_ch1, /admin:12345/stream.
_SECRET_NAMES = re.compile(r"(?i)((?<![A-Za-z])(?:user(?:name)?|usr|login|pass(?:word|wd)?|pwd|psw)_)[^&/;]+")
_SECRET_PAIR = re.compile(r"(?<=[^/:]/)[^/:@]+:[^/]+")
_SCHEMES = "https?|rtsps?|rtmps?|rtp|ftps?|s3|file|onvif|mqtts?|usb|folder"
_BEFORE_SECRETS = re.compile(rf"(?i)(?:usb:)?(?:[a-z][a-z0-9+.-]*://|(?:{_SCHEMES}):/*)?")
_IS_URL = re.compile(r"(?i).*://|(?:usb:)?(?:https?|rtsps?|rtmps?):", re.DOTALL)
_NOT_ASCII = re.compile(r"[^ -~]")


def escaped(text: object, most: int = MAX_SHOWN_CHARS) -> str:
    r"""Return text with everything that is not printable as an escape sequence, such as `\x1b` or `\u202e`.

    That are the control characters C0 and C1 (line breaks too), bidirectional and other format characters,
    separators other than the space, unassigned and private code points, and lone surrogates (bytes of a file
    name that are not UTF-8).

    Args:
        text: The text, or an object that is shown as its `str`.
        most: Characters that are kept; the rest is replaced by its number.
    """
    whole = str(text)
    shown = whole[:most]
    if not shown.isprintable():
        shown = "".join(map(_escaped_character, shown))
    return shown if len(whole) <= most else f"{shown}… ({len(whole) - most} more characters)"


def is_unicode(text: str) -> bool:
    """Return False for text with lone surrogates: bytes of a file name or an argument that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def without_secrets(text: str) -> str:
    """Return a URL, or what was meant as one, as it may be shown: without user, password and query values.

    The values of a few query fields that identify cameras, such as `channel`, are kept. Of a text without a
    scheme of the network, such as a path, only what is before an `@` is hidden, and the values of fields with
    names such as `password`.
    """
    shown = text
    if "@" in text:
        # Up to the last @, in the raw text: with / or # in the password it is not a valid URL, and is shown
        # in an error.
        before = _BEFORE_SECRETS.match(text)
        rest = text.rpartition("@")[2]
        shown = f"{before[0] if before and '@' not in before[0] else ''}{_HIDDEN}@{rest}"
    if not _IS_URL.match(text):
        return _SECRET_FIELD.sub(rf"\1{_HIDDEN}", shown)
    address, mark, query = shown.partition("?")
    address = _SECRET_FIELD.sub(rf"\1{_HIDDEN}", address)
    address = _SECRET_PAIR.sub(_HIDDEN, _SECRET_NAMES.sub(rf"\1{_HIDDEN}", address))
    return address + mark + "&".join(_field(field) for field in re.split("[&;]", query))


def _field(field: str) -> str:
    name, separator, value = field.partition("=")
    if not separator:
        return _HIDDEN if field else ""
    return f"{name}={value if name.lower() in _SHOWN_VALUES and value.isalnum() else _HIDDEN}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return names as one text; of many the first ones and the number of the others."""
    if len(names) <= most + 1:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def ascii_json(value: object) -> str:
    r"""Return a value as JSON on one line, in ASCII: everything else in it is written as `\uXXXX`.

    A lone surrogate, which JSON for other programs must not contain, is replaced by its escape sequence.
    """
    try:
        text = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        text = msgspec.json.encode(without_surrogates(msgspec.to_builtins(value))).decode()
    return _NOT_ASCII.sub(_json_escape, text)


def without_surrogates(value: object, errors: str = "backslashreplace") -> object:
    """Return a value with no lone surrogate in its texts, at any depth.

    Args:
        value: Texts, dicts, lists, and anything else, which stays as it is.
        errors: What stands for one: `backslashreplace` its escape sequence, `replace` a question mark.
    """
    if isinstance(value, str):
        return value.encode("utf-8", errors).decode()
    if isinstance(value, dict):
        return {
            without_surrogates(name, errors): without_surrogates(one, errors) for name, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_surrogates(one, errors) for one in value]
    return value


def _escaped_character(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def _json_escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
