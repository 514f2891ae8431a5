"""Languages of the pages: English in the source, message catalogues for the others."""

import gettext
import io
from functools import cache
from importlib.resources import files

from babel import Locale
from babel.core import negotiate_locale
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from starlette.requests import Request

LANGUAGES = {"en": "English", "zh_Hant": "正體中文"}
"""Name of each language in itself, by its locale."""
COOKIE = "gleaner-language"

# In lower case, as Babel looks them up. Who asks for simplified characters reads these rather than English.
_CHINESE = (
    "zh",
    "zh_tw",
    "zh_hk",
    "zh_mo",
    "zh_hant_tw",
    "zh_hant_hk",
    "zh_hant_mo",
    "zh_hans",
    "zh_cn",
    "zh_sg",
)
_ALIASES = dict.fromkeys(_CHINESE, "zh_Hant")
_MAX_PREFERENCES = 10


def N_(text: str) -> str:  # noqa: N802  # the usual name in gettext: marks a constant for the catalogue
    """Return a text as it is; the template that shows it translates it."""
    return text


@cache
def translations(language: str) -> gettext.NullTranslations:
    """Return the translations of a language; English has none."""
    if language == "en":
        return gettext.NullTranslations()
    compiled = io.BytesIO()
    write_mo(compiled, catalogue(language))
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


@cache
def catalogue(language: str) -> Catalog:
    """Return the message catalogue of a language other than English."""
    folder = files("console") / "locale" / language / "LC_MESSAGES"
    # From the text, not from a compiled file, which could be older.
    return read_po(io.BytesIO((folder / "console.po").read_bytes()), locale=language)


@cache
def locale_of(language: str) -> Locale:
    """Return how dates and numbers are written in a language."""
    return Locale.parse("en_GB" if language == "en" else language)


def language_of(request: Request) -> str:
    """Return the language that the user chose, else the browser's, else English."""
    chosen = request.cookies.get(COOKIE)
    return chosen if chosen in LANGUAGES else preferred(request.headers.get("accept-language", ""))


def preferred(header: str) -> str:
    """Return the best language for an `Accept-Language` header."""
    wanted = sorted(map(_preference, header.split(",")[:_MAX_PREFERENCES]), key=lambda one: -one[1])
    names = [name for name, quality in wanted if quality > 0]
    return negotiate_locale(names, list(LANGUAGES), aliases=_ALIASES) or "en"


def translator(request: Request) -> gettext.NullTranslations:
    """Return the translations for a request."""
    return translations(language_of(request))


def _preference(part: str) -> tuple[str, float]:
    name, _, parameter = part.strip().partition(";")
    try:
        quality = float(parameter.strip().removeprefix("q=") or 1)
    except ValueError:
        quality = 0.0
    return name.strip().replace("-", "_"), quality
