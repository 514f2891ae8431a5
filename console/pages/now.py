"""Now: the last answer of each device, and what is wrong."""

from collections.abc import Sequence
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bus.diagnosis.status_checks import fleet_findings
from console.context import Console, console_of
from console.web.languages import N_, translator
from console.web.navigation import Page
from console.web.rendering import is_fragment, render
from schemas.messages import Result

MAX_CARDS = 60
"""Most devices on the page."""
EARLIER = 5
_FILTERS = ("node", "device", "label", "lane")


class Card(NamedTuple):
    """A device with its answers that match the filters, newest first.

    Args:
        picture: Address of the last picture, or None.
    """

    node: str
    device: str
    last: Result
    earlier: Sequence[Result]
    picture: str | None


async def _show(request: Request) -> Response:
    console = console_of(request)
    chosen = {name: request.query_params.get(name, "") for name in _FILTERS}
    cards = _cards(console, chosen)
    values: dict[str, object] = {
        "chosen": chosen,
        "cards": cards[:MAX_CARDS],
        "hidden": max(0, len(cards) - MAX_CARDS),
        "any_answers": bool(console.live.answers),
    }
    if is_fragment(request):
        return render(request, "now/_answers.html", values)
    return render(request, "now.html", values | _health_values(console) | {"filters": _filters(request)})


async def _health(request: Request) -> Response:
    return render(request, "now/_health.html", _health_values(console_of(request)))


def _health_values(console: Console) -> dict[str, object]:
    findings = fleet_findings(list(console.live.statuses.values()))
    reason = console.bus.unready_reason()
    return {
        "problems": [one for one in findings if not one.passed],
        "components": len(console.live.statuses),
        "broker_problem": reason,
    }


def _cards(console: Console, chosen: dict[str, str]) -> list[Card]:
    cards = []
    for camera, answers in reversed(console.live.answers.items()):
        if chosen["node"] not in ("", camera.node) or chosen["device"] not in ("", camera.device):
            continue
        matching = [one for one in answers if _matches(one, chosen)]
        if matching:
            last, *earlier = matching
            picture = f"/previews/{last.photo_id}" if last.photo_id in console.previews else None
            cards.append(Card(*camera, last, earlier[:EARLIER], picture))
    return cards


def _matches(result: Result, chosen: dict[str, str]) -> bool:
    return chosen["label"] in ("", result.label) and chosen["lane"] in ("", result.harvest)


def _filters(request: Request) -> list[tuple[str, str, list[str]]]:
    """Return name, title and values of each filter, from what was seen."""
    _, live = translator(request).gettext, console_of(request).live
    latest = list(live.latest())
    titles = {"node": _("Node"), "device": _("Device"), "label": _("Class"), "lane": _("Lane")}
    seen = {
        "node": {camera.node for camera in live.answers},
        "device": {camera.device for camera in live.answers},
        "label": {one.label for one in latest if one.label is not None},
        "lane": {one.harvest for one in latest if one.harvest is not None},
    }
    return [(name, titles[name], sorted(seen[name])) for name in _FILTERS]


PAGE = Page(
    name="now",
    path="/now",
    title=N_("Now"),
    icon="now",
    routes=(Route("/now", _show), Route("/now/health", _health)),
)
