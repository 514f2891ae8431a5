"""Fleet: every component and device, its queues, refusals and clock."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bus.mqtt.presence import now_ms
from console.analysis.fleet_view import fleet
from console.context import console_of
from console.web.languages import N_
from console.web.navigation import Page
from console.web.rendering import is_fragment, render


async def _show(request: Request) -> Response:
    statuses = console_of(request).live.statuses.values()
    values = {"groups": fleet(statuses, now_ms())}
    return render(request, "fleet/_nodes.html" if is_fragment(request) else "fleet.html", values)


PAGE = Page(name="fleet", path="/fleet", title=N_("Fleet"), icon="fleet", routes=(Route("/fleet", _show),))
