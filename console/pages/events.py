"""Events: what happened, newest first."""

from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from console.context import console_of
from console.web.filters import chosen_in, filter_of, matcher
from console.web.languages import N_, translator
from console.web.navigation import Page
from console.web.rendering import is_fragment, render
from schemas.events import MEANINGS, EventName
from schemas.messages import Event

SHOWN = 100
"""Most events on the page; the others are found with the filters."""
_FILTERS = ("event", "node", "name")
_BAD = ("failed", "refused", "returned", "mismatched", "misnamed", "detected", "delayed")
_GOOD = ("available", "finished", "recorded")


class Shown(NamedTuple):
    """An event as the page shows it."""

    event: Event
    meaning: str
    tone: str


async def _show(request: Request) -> Response:
    events = list(console_of(request).live.events)
    chosen = chosen_in(request, _FILTERS)
    seen = {name: {getattr(one, name) for one in events} for name in _FILTERS}
    matches = matcher(chosen, seen)
    matching = [one for one in events if matches({name: getattr(one, name) for name in _FILTERS})]
    gettext = translator(request).gettext
    values: dict[str, object] = {
        "events": [_shown(one, gettext(_meaning(one.event))) for one in matching[:SHOWN]],
        "chosen": chosen,
        "chosen_any": any(chosen.values()),
    }
    if is_fragment(request):
        return render(request, "events/_timeline.html", values)
    titles = {"event": gettext("Event"), "node": gettext("Node"), "name": gettext("Component")}
    filters = [filter_of(name, titles[name], seen[name]) for name in _FILTERS]
    return render(request, "events.html", values | {"filters": filters})


def _shown(event: Event, meaning: str) -> Shown:
    last = event.event.rpartition(".")[2]
    tone = "bad" if last in _BAD else "good" if last in _GOOD else "plain"
    return Shown(event, meaning, tone)


def _meaning(name: str) -> str:
    """Return what an event means; that of a later version is unknown here."""
    return MEANINGS[EventName(name)] if name in MEANINGS else ""


PAGE = Page(
    name="events", path="/events", title=N_("Events"), icon="events", routes=(Route("/events", _show),)
)
