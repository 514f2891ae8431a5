"""Now: the last answer of each device, and what is wrong."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bus.diagnosis.status_checks import fleet_findings
from console.context import Console, console_of
from console.web.filters import Filter, chosen_in, filter_of, matcher
from console.web.languages import N_, translator
from console.web.navigation import Page
from console.web.rendering import is_fragment, render
from console.web.words import HARVEST
from schemas.messages import Result

MAX_CARDS = 60
"""Most devices on the page."""
MAX_PROBLEMS = 25
"""Most problems on the page; `gleaner doctor` lists all."""
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
    chosen = chosen_in(request, _FILTERS)
    seen = _seen(console)
    cards = _cards(console, matcher(chosen, seen))
    values: dict[str, object] = {
        "chosen": chosen,
        "cards": cards[:MAX_CARDS],
        "hidden": max(0, len(cards) - MAX_CARDS),
        "any_answers": bool(console.live.answers),
    }
    if is_fragment(request):
        return render(request, "now/_answers.html", values)
    return render(
        request, "now.html", values | _health_values(console) | {"filters": _filters(request, seen)}
    )


async def _health(request: Request) -> Response:
    return render(request, "now/_health.html", _health_values(console_of(request)))


def _health_values(console: Console) -> dict[str, object]:
    findings = fleet_findings(list(console.live.statuses.values()))
    reason = console.bus.unready_reason()
    problems = [one for one in findings if not one.passed]
    return {
        "problems": problems[:MAX_PROBLEMS],
        "further": max(0, len(problems) - MAX_PROBLEMS),
        "components": len(console.live.statuses),
        "broker_problem": reason,
    }


def _cards(console: Console, matches: Callable[[Mapping[str, str | None]], bool]) -> list[Card]:
    cards = []
    for camera, answers in reversed(console.live.answers.items()):
        matching = [one for one in answers if matches(_values(one))]
        if matching:
            last, *earlier = matching
            picture = f"/previews/{last.photo_id}" if last.photo_id in console.previews else None
            cards.append(Card(*camera, last, earlier[:EARLIER], picture))
    return cards


def _values(result: Result) -> dict[str, str | None]:
    return {"node": result.node, "device": result.device, "label": result.label, "lane": result.harvest}


def _seen(console: Console) -> dict[str, set[str]]:
    """Return the values of each filter that were seen."""
    seen: dict[str, set[str]] = {name: set() for name in _FILTERS}
    for one in console.live.latest():
        for name, value in _values(one).items():
            if value is not None:
                seen[name].add(value)
    return seen


def _filters(request: Request, seen: Mapping[str, set[str]]) -> list[Filter]:
    _ = translator(request).gettext
    titles = {"node": _("Node"), "device": _("Device"), "label": _("Class"), "lane": _("Lane")}
    says = {"lane": lambda code: _(HARVEST[code]) if code in HARVEST else code}
    return [filter_of(name, titles[name], seen[name], says.get(name, str)) for name in _FILTERS]


PAGE = Page(
    name="now",
    path="/now",
    title=N_("Now"),
    icon="now",
    routes=(Route("/now", _show), Route("/now/health", _health)),
)
