"""Render templates: every value is shown as inert text, in the visitor's language."""

import datetime as dt
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import cast

from babel import dates, numbers
from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from bus.diagnosis.sentence import Sentence
from bus.mqtt.presence import now_ms
from console.access.roles import Visitor
from console.web.assets import Assets
from console.web.guard import CSRF_FIELD, csrf_token
from console.web.languages import LANGUAGES, catalogue, language_of, locale_of, translations
from console.web.navigation import Page
from console.web.phrasebook import EXPECTED, JOINED, Phrasebook
from console.web.words import ANSWERS, DONE, FACTS, HARVEST, MODEL_STATES, ORDERS, ROLES
from schemas.errors import GleanerError
from schemas.text import escaped

MAX_SHOWN_CHARS = 400
"""Longest text from outside that a page shows whole."""
_LAST_MS = 253_402_300_799_000
"""The end of the year 9999: no datetime is later."""
_LARGEST_SHOWN, _LARGEST = 1e18, 1e300
_CODE = re.compile("`([^`]+)`")


def render(
    request: Request, template: str, values: Mapping[str, object], *, status_code: int = 200
) -> HTMLResponse:
    """Render a template.

    Args:
        request: Its visitor, language and CSRF token are at the template's hand.
        template: Name below `console/templates`.
        values: For the template.
        status_code: Of the answer.
    """
    state = request.scope["state"]
    visitor: Visitor | None = state.get("visitor")
    page: Page | None = state.get("page")
    text = _environment(language_of(request)).get_template(template).render(
        visitor=visitor,
        may=(lambda role: visitor is not None and visitor.may(role)),
        page=page,
        pages=request.app.state.pages,
        here=_here(request, page),
        sequence=state.get("sequence", 0),
        outcome=DONE.get(request.query_params.get("done", "")),
        csrf=csrf_token(request),
        csrf_field=lambda: _csrf_field(request),
        language=language_of(request),
        languages=LANGUAGES,
        **values,
    )  # fmt: skip
    return HTMLResponse(text, status_code)


def _here(request: Request, page: Page | None) -> str:
    """Return where a visitor comes back to who changes the language: not to the answer of a form."""
    if request.method != "GET":
        return "/" if page is None else page.path
    return f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path


@cache
def assets() -> Assets:
    """Return the files for browsers."""
    return Assets()


def percent(request: Request, share: float) -> str:
    """Return a share, 0 to 1, as the visitor's language writes it."""
    return _percent(share, language_of(request))


def is_fragment(request: Request) -> bool:
    """Return whether htmx asks for a part of the page; when it restores a page, it wants the whole."""
    headers = request.headers
    return "hx-request" in headers and "hx-history-restore-request" not in headers


def error_text(request: Request, error: GleanerError) -> str:
    """Return an error of ours in the visitor's language."""
    sentence = error.subject
    if error.expected is not None:
        sentence = Sentence(EXPECTED.template, subject=sentence, expected=error.expected, got=str(error.got))
    if error.hint is not None:
        sentence = Sentence(JOINED.template, one=sentence, other=error.hint)
    return said(request, sentence)


def said(request: Request, sentence: str) -> str:
    """Return a sentence, of ours or from elsewhere, in the visitor's language."""
    return _phrasebook(language_of(request)).said(sentence)


@cache
def _environment(language: str) -> Environment:
    environment = Environment(
        loader=PackageLoader("console"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_inert,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    environment.install_gettext_translations(translations(language), newstyle=True)  # type: ignore[attr-defined]  # of the extension
    for name in ("gettext", "ngettext"):
        translate = cast("Callable[..., str]", environment.globals[name])
        environment.globals[name] = _with_inert_values(translate)
    environment.globals["asset"] = assets().url
    environment.globals["lang_tag"] = language.replace("_", "-")

    def word(words: Mapping[str, str], code: str) -> str:
        return translations(language).gettext(words[code]) if code in words else code

    environment.filters |= {
        "coded": _coded,
        "exact": _exact,
        "said": _phrasebook(language).said,
        "answer": lambda code: word(ANSWERS, code),
        "fact": lambda code: word(FACTS, code),
        "harvest": lambda code: word(HARVEST, code),
        "model_state": lambda code: word(MODEL_STATES, code),
        "order": lambda code: word(ORDERS, code),
        "role": lambda code: word(ROLES, code),
        "ago": lambda ms: _ago(ms, language),
        "moment": lambda ms: _moment(ms, language),
        "iso": _iso,
        "percent": lambda share: _percent(share, language),
        "number": lambda value: _number(value, language),
    }
    return environment


def _with_inert_values(translate: Callable[..., str]) -> Callable[..., str]:
    """Return a function for translations that shows their values inert; `_inert` sees only the whole text."""

    @pass_context
    def translated(context: Context, *texts: object, **values: object) -> str:
        return translate(context, *texts, **{name: _inert(value) for name, value in values.items()})

    return translated


def _inert(value: object) -> object:
    """Show what is not printable as its escape sequence, and cut what is too long."""
    return (
        escaped(value, MAX_SHOWN_CHARS) if isinstance(value, str) and not isinstance(value, Markup) else value
    )


@cache
def _phrasebook(language: str) -> Phrasebook:
    texts = [] if language == "en" else [one.id for one in catalogue(language)]
    return Phrasebook([one for one in texts if isinstance(one, str)], translations(language).gettext)


def _exact(value: str) -> Markup:
    """Return a text as it is, escaped for HTML, for a form that sends it back."""
    return escape(value)


def _coded(text: str) -> Markup:
    """Return a text of ours with what stands between grave accents as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped


def _csrf_field(request: Request) -> Markup:
    return Markup('<input type="hidden" name="{}" value="{}">').format(CSRF_FIELD, csrf_token(request))


def _number(value: float, language: str) -> str:
    # A message may have any: babel fails beyond 28 digits, and a whole number may have more than any float.
    if abs(value) < _LARGEST_SHOWN:
        return str(numbers.format_decimal(value, locale=locale_of(language)))
    return f"{max(-_LARGEST, min(value, _LARGEST)):.3g}"


def _percent(share: float, language: str) -> str:
    shown = max(-_LARGEST_SHOWN, min(share, _LARGEST_SHOWN))
    return str(numbers.format_percent(shown, "0%", locale=locale_of(language)))


def _ago(ms: int, language: str) -> str:
    delta = dt.timedelta(milliseconds=min(ms, _LAST_MS) - now_ms())
    ago: str = dates.format_timedelta(delta, add_direction=True, threshold=1.2, locale=locale_of(language))
    return ago


def _moment(ms: int, language: str) -> str:
    """Return a moment as text; `console.js` puts the reader's own time in its place."""
    moment: str = dates.format_datetime(_time(ms), "medium", locale=locale_of(language))
    return f"{moment} UTC"


def _iso(ms: int) -> str:
    return _time(ms).isoformat(timespec="seconds")


def _time(ms: int) -> dt.datetime:
    # A message may claim a time that no datetime has, before the year 1 or beyond 9999.
    return dt.datetime.fromtimestamp(max(0, min(ms, _LAST_MS)) / 1000, dt.UTC)
