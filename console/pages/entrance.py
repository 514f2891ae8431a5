"""Log in and out, choose a language, and be installed as an app."""

import re

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from console.access.audit_trail import client_of
from console.access.login import Identified
from console.access.roles import visitor
from console.context import console_of
from console.web.guard import Cookie, field
from console.web.languages import COOKIE, LANGUAGES, language_of, translator
from console.web.rendering import assets, render

_LOCAL = re.compile(r"/(?![/\\])")
_YEAR_S = 31_536_000


async def _show_login(request: Request) -> Response:
    return _login_page(request)


async def _log_in(request: Request) -> Response:
    console, client = console_of(request), client_of(request)
    name = field(request, "name")
    found = await console.login.by_password(name, field(request, "password"), client)
    if not isinstance(found, Identified):
        if found is None:  # throttled log-ins are not recorded: they could push out all other entries
            await console.audit.record_as(name[:128], client, "login.failed")
        return _login_page(request, wait_s=found, failed=True)
    response = RedirectResponse("/", 303)
    cookie: Cookie = request.app.state.cookie
    cookie.put(response, await console.sessions.begin(found))
    await console.audit.record_as(found.name, client, "login.succeeded", role=found.role)
    return response


def _login_page(request: Request, *, wait_s: float | None = None, failed: bool = False) -> Response:
    status = 429 if wait_s else 403 if failed else 200
    return render(
        request,
        "login.html",
        {
            "by_address": console_of(request).login.by_address,
            "behind_proxy": console_of(request).login.behind_proxy,
            "failed": failed,
            "wait_s": wait_s,
        },
        status_code=status,
    )


async def _log_out(request: Request) -> Response:
    cookie: Cookie = request.app.state.cookie
    await console_of(request).audit.record(request, "logout", name=visitor(request).name)
    await console_of(request).sessions.end(request.cookies.get(cookie.name))
    response = RedirectResponse("/login", 303)
    cookie.put(response, "")
    return response


async def _choose_language(request: Request) -> Response:
    """Remember the language in a cookie; who may not log in may read the reason in it."""
    back = field(request, "back")
    response = RedirectResponse(back if _LOCAL.match(back) else "/", 303)
    chosen = field(request, "language")
    if chosen in LANGUAGES:
        secure = request.app.state.cookie.secure
        response.set_cookie(COOKIE, chosen, max_age=_YEAR_S, httponly=True, samesite="lax", secure=secure)
    return response


async def _manifest(request: Request) -> Response:
    """Answer in the visitor's language: it is fetched with the cookies."""
    _ = translator(request).gettext
    icons = [
        {
            "src": assets().url(f"icon-{size}.png"),
            "sizes": f"{size}x{size}",
            "type": "image/png",
            "purpose": use,
        }
        for size in (192, 512)
        for use in ("any", "maskable")
    ]
    manifest = {
        "id": "/",
        "name": "Gleaner",
        "short_name": "Gleaner",
        "lang": language_of(request).replace("_", "-"),
        "description": _("Photos, labels and models of your cameras"),
        "start_url": "/",
        "scope": "/",
        "display": "standalone",
        "background_color": "#f6f5f1",
        "theme_color": "#2f6b4f",
        "icons": icons,
        "shortcuts": [{"name": _("Review"), "url": "/review"}, {"name": _("Now"), "url": "/now"}],
    }
    return JSONResponse(manifest, media_type="application/manifest+json")


ROUTES = (
    Route("/login", _show_login, methods=["GET"]),
    Route("/login", _log_in, methods=["POST"]),
    Route("/logout", _log_out, methods=["POST"]),
    Route("/language", _choose_language, methods=["POST"]),
    Route("/manifest.webmanifest", _manifest),
)
