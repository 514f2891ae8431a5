"""The application: pages, streams, pictures and assets behind the guard."""

from collections.abc import Awaitable, Callable

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from console.context import Console, console_of
from console.live.broadcast import TooManyStreamsError
from console.pages import ENTRANCE, PAGES
from console.web.guard import Cookie, Guard
from console.web.navigation import page_at
from console.web.parameters import whole_number
from console.web.rendering import assets, error_text, render
from schemas.errors import GleanerError, TransientError

log = structlog.get_logger()

_NO_ROOM = {"Retry-After": "10"}


def create_app(console: Console, *, hosts: list[str], cookie: Cookie) -> Starlette:
    """Return the ASGI application of a console.

    Args:
        console: What its pages share.
        hosts: Names under which it may be addressed.
        cookie: The session's cookie.
    """
    guard = Middleware(
        Guard,
        hosts=hosts,
        sessions=console.sessions,
        login=console.login,
        audit=console.audit,
        cookie=cookie,
    )
    routes = [
        Route("/", _home),
        Route("/live", _live),
        Route("/live/changed", _changed),
        Route("/static/{name}", assets().serve),
        *ENTRANCE,
        *(route for page in PAGES for route in page.routes),
    ]
    handlers: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
        HTTPException: _http_error,
        GleanerError: _own_error,
    }
    # The stream of events is left out by its type. BREACH: the only secret of a page, the CSRF token, has
    # another mask in each answer, see `console/web/csrf.py`.
    compressed = Middleware(GZipMiddleware, compresslevel=6)
    app = Starlette(
        routes=routes,
        middleware=[guard, compressed, Middleware(_CurrentPage)],
        exception_handlers=handlers,
    )
    app.state.console, app.state.pages, app.state.cookie = console, PAGES, cookie
    return app


class _CurrentPage:
    """Middleware that passes the page of a request to the templates."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "http":
            scope["state"]["page"] = page_at(PAGES, scope["path"])
            # Before the page reads anything: changes from here on are sent to its stream.
            scope["state"]["sequence"] = console_of(Request(scope)).broadcast.sequence
        await self._app(scope, receive, send)


async def _home(_: Request) -> Response:
    return RedirectResponse(PAGES[0].path, 303)


async def _live(request: Request) -> Response:
    """Stream which kinds of things change; see `console/live/broadcast.py`."""
    if request.method == "HEAD":  # it has an end, which a stream has not
        return Response(media_type=_Stream.media_type)
    stream = console_of(request).broadcast.stream(_since(request))
    try:
        opened = stream.__enter__()  # left when the answer ends, which is after this function
    except TooManyStreamsError:
        return Response("as many pages as possible are open\n", 503, headers=_NO_ROOM)
    return _Stream(opened.events(), lambda: stream.__exit__(None, None, None))


async def _changed(request: Request) -> Response:
    """Return which kinds of things changed since a page was made, for one that shares another's stream."""
    changed = console_of(request).broadcast.changed_since(_since(request))
    return JSONResponse(changed, headers={"Cache-Control": "no-store"})


def _since(request: Request) -> int | None:
    return whole_number(request.query_params.get("since", ""))


class _Stream(StreamingResponse):
    """A stream of server-sent events that is closed when the page is, even before its first byte."""

    media_type = "text/event-stream"

    def __init__(self, events: object, close: Callable[[], object]) -> None:
        super().__init__(events, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})  # type: ignore[arg-type]
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the page is closed or the console stops."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error_page(request, error.status_code, "")


async def _own_error(request: Request, error: Exception) -> Response:
    """Show an error of ours as its sentence: nothing is wrong with the request."""
    assert isinstance(error, GleanerError)
    log.warning("console.request_failed", path=request.url.path, error=str(error))
    status = 503 if isinstance(error, TransientError) else 409
    # A sentence may name files and photos: it is for people who are logged in.
    known = request.scope["state"].get("visitor") is not None
    return _error_page(request, status, error_text(request, error) if known else "")


def _error_page(request: Request, status: int, reason: str) -> Response:
    return render(request, "error.html", {"status": status, "reason": reason}, status_code=status)
