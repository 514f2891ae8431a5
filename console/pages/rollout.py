"""Rollout: where a version is, how it compares, and an operator's orders to it."""

import asyncio
from typing import get_args

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from bus.diagnosis.sentence import Sentence
from bus.mqtt.presence import now_ms
from cloud.registry.rollout_state import Action, Rollout
from cloud.rollout.steering import new_order
from console.access.roles import requires, visitor
from console.analysis.rollout_view import RolloutView, rollout_view
from console.context import Console, console_of
from console.steering.publish import order
from console.web.charts import Frame, Line, Point, line_chart
from console.web.guard import field
from console.web.languages import N_, translator
from console.web.navigation import Page
from console.web.rendering import is_fragment, percent, render
from schemas.errors import PermanentError
from schemas.field_types import MAX_TEXT_CHARS
from schemas.topics import CLOUD, HANDLERS

WORDS: dict[Action, tuple[str, str]] = {
    "pause": (N_("Pause"), N_("No further stage begins. A version that does badly is still rolled back.")),
    "resume": (N_("Go on"), N_("The next stage begins as soon as the present one has seen enough.")),
    "promote": (N_("Promote"), N_("Every node gets the version now, without the stages that are left.")),
    "roll-back": (N_("Go back"), N_("Every node that has the version returns to the champion.")),
}
_HIGHEST_SHARE = 0.05
_STATUS_NAME = (CLOUD, "rollout")


async def _show(request: Request) -> Response:
    console = console_of(request)
    rollout = await asyncio.to_thread(console.registry.newest_rollout)
    values = {"view": None} if rollout is None else _values(request, _view(console, rollout))
    return render(request, "rollout/_view.html" if is_fragment(request) else "rollout.html", values)


@requires("operator")
async def _confirm(request: Request) -> Response:
    action = request.query_params.get("action", "")
    rollout = await _running(request)
    title, words = WORDS[_action(action)]
    return render(
        request,
        "rollout/confirm.html",
        {
            "action": action,
            "rollout": rollout,
            "title": title,
            "words": words,
        },
    )


@requires("operator")
async def _steer(request: Request) -> Response:
    console, action = console_of(request), _action(field(request, "action"))
    rollout = await _running(request)
    if field(request, "began") != f"{rollout.challenger.version}-{rollout.began_ms}":
        raise PermanentError(Sentence("another rollout has begun meanwhile: look at it first"))
    reason = field(request, "reason").strip()[:MAX_TEXT_CHARS]
    given = new_order(rollout, action, visitor(request).name, reason)
    # Before it is done: what is not recorded must not happen.
    await console.audit.record(
        request, "rollout.ordered", order=given.order_id, ordered=action, version=given.version, reason=reason
    )
    await order(console, given)
    console.live.ordered = given
    return RedirectResponse("/rollout", 303)


async def _running(request: Request) -> Rollout:
    rollout = await asyncio.to_thread(console_of(request).registry.newest_rollout)
    if rollout is None or rollout.phase != "running":
        raise PermanentError(Sentence("no rollout is running"))
    return rollout


def _action(text: str) -> Action:
    found: Action | None = next((one for one in get_args(Action) if one == text), None)
    if found is None:
        raise HTTPException(404)
    return found


def _view(console: Console, rollout: Rollout) -> RolloutView:
    edges = {node: status for (node, name), status in console.live.statuses.items() if name == HANDLERS[0]}
    return rollout_view(rollout, edges, console.live.comparisons, now_ms())


def _values(request: Request, view: RolloutView) -> dict[str, object]:
    live = console_of(request).live
    waiting = (
        live.ordered
        if live.ordered is not None and _is_waiting(view.rollout, live.ordered.order_id)
        else None
    )
    controller = live.statuses.get(_STATUS_NAME)
    return {
        "view": view,
        "words": WORDS,
        "waiting": waiting,
        "controlled": controller is not None and controller.state != "offline",
        "chart": _chart(request, view),
    }


def _is_waiting(rollout: Rollout, order_id: str) -> bool:
    return rollout.phase == "running" and all(done.order_id != order_id for done in rollout.orders)


def _chart(request: Request, view: RolloutView) -> str | None:
    if len(view.growth) < 2:  # noqa: PLR2004 - a line needs two points
        return None
    gettext, last, limit = translator(request).gettext, view.growth[-1], view.rollout.rules.disagreement
    sentence = gettext(
        "Of %(photos)s compared photos, %(share)s have another label. It goes back above %(limit)s."
    )
    frame = Frame(
        gettext("Photos with another label than the champion's"),
        sentence
        % {
            "photos": last.photos,
            "share": percent(request, last.share),
            "limit": percent(request, limit),
        },
        gettext("compared photos"),
        limit=limit,
        highest=max(_HIGHEST_SHARE, 1.25 * limit, min(1.0, 1.1 * max(one.high for one in view.growth))),
    )
    points = [Point(one.photos, one.low, one.share, one.high) for one in view.growth]
    return line_chart(frame, [Line("one", points, dotted=False)])


PAGE = Page(
    name="rollout",
    path="/rollout",
    title=N_("Rollout"),
    icon="rollout",
    routes=(
        Route("/rollout", _show),
        Route("/rollout/confirm", _confirm),
        Route("/rollout/steer", _steer, methods=["POST"]),
    ),
)
