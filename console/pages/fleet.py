"""Fleet: components and devices, what waits in them and what they refused."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bus.mqtt.presence import now_ms
from console.analysis.fleet_view import fleet, found, shown
from console.context import console_of
from console.web.filters import Filter, chosen_in
from console.web.languages import N_, translator
from console.web.navigation import Page
from console.web.rendering import is_fragment, render


async def _show(request: Request) -> Response:
    statuses = console_of(request).live.statuses.values()
    chosen = chosen_in(request, ["find", "state"])
    groups, hidden = shown(found(fleet(statuses, now_ms()), chosen["find"], chosen["state"]))
    values = {
        "groups": groups,
        "hidden": hidden,
        "any_reported": bool(statuses),
        "chosen": chosen,
        "filters": _filters(request),
    }
    return render(request, "fleet/_nodes.html" if is_fragment(request) else "fleet.html", values)


def _filters(request: Request) -> list[Filter]:
    _ = translator(request).gettext
    states = {
        "online": _("online"),
        "degraded": _("degraded"),
        "silent": _("silent"),
        "offline": _("offline"),
    }
    return [Filter("find", _("Node or device"), {}), Filter("state", _("State"), states)]


PAGE = Page(name="fleet", path="/fleet", title=N_("Fleet"), icon="fleet", routes=(Route("/fleet", _show),))
