"""Review: label photos, one after the other or several at once."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from bus.diagnosis.sentence import Sentence
from cloud.labeling.key_bindings import key_bindings
from cloud.labeling.review_order import reason_text
from console.access.audit_trail import client_of
from console.access.roles import requires, visitor
from console.context import console_of
from console.web.guard import CSRF_HEADER, field, form
from console.web.languages import N_, translator
from console.web.navigation import Page
from console.web.rendering import error_text, render
from schemas.class_names import NEITHER
from schemas.errors import GleanerError, PermanentError, TransientError

AHEAD = 4
"""Photos in the page: the one that is shown, and those that the browser preloads."""
GRID = 24
MAX_AT_ONCE = 200
_ALL = "a"


@requires("reviewer")
async def _show(request: Request) -> Response:
    grid = request.query_params.get("view") == "grid"
    desk = console_of(request).desk
    photos = await desk.next_photos(visitor(request), GRID if grid else AHEAD)
    classes = desk.classes()
    values = {
        "grid": grid,
        "photos": photos,
        "reason": _reasons(request),
        "classes": classes,
        "keys": keys_of(classes, grid=grid),
        "neither": NEITHER,
        "remaining": desk.remaining(visitor(request)),
        "lease_s": console_of(request).config.lease_s,
    }
    return render(request, "review.html", values)


@requires("reviewer")
async def _more(request: Request) -> Response:
    """Return further photos as HTML; those that the page has stay reserved, but for the lost ones."""
    have = _ids(request, "have")
    desk = console_of(request).desk
    lost = desk.lost(visitor(request), have)
    have = [photo_id for photo_id in have if photo_id not in lost]
    count = max(0, (GRID if field(request, "view") == "grid" else AHEAD) - len(have))
    photos = await desk.next_photos(visitor(request), count, have)
    template = "review/_tiles.html" if field(request, "view") == "grid" else "review/_photos.html"
    response = render(request, template, {"photos": photos, "reason": _reasons(request)})
    response.headers["X-Lost"] = " ".join(lost)
    response.headers["X-Remaining"] = str(desk.remaining(visitor(request)))
    return response


@requires("reviewer")
async def _label(request: Request) -> Response:
    """Give photos a label; answers with its ids, or in a browser without script with the page."""
    desk = console_of(request).desk
    label = field(request, "other").strip() or field(request, "label")
    try:
        ids = await desk.label(visitor(request), client_of(request), _ids(request, "photo"), label)
    except GleanerError as error:
        return _refused(request, error)
    if CSRF_HEADER not in request.headers:
        return RedirectResponse("/review", 303)
    return JSONResponse({"labels": ids, "classes": desk.classes()})


@requires("reviewer")
async def _skip(request: Request) -> Response:
    console_of(request).desk.skip(visitor(request), _ids(request, "photo"))
    return RedirectResponse("/review", 303) if CSRF_HEADER not in request.headers else JSONResponse({})


@requires("reviewer")
async def _release(request: Request) -> Response:
    """Give back the photos of a page that is left."""
    console_of(request).desk.release(visitor(request), _ids(request, "photo"))
    return Response(status_code=204)


@requires("reviewer")
async def _undo(request: Request) -> Response:
    """Take labels back; answers with the photos whose labels were not sent yet."""
    ids = form(request).get("label_id", [])[:MAX_AT_ONCE]
    taken = await console_of(request).desk.take_back(visitor(request), client_of(request), ids)
    return JSONResponse({"photos": taken})


def keys_of(classes: Sequence[str], *, grid: bool) -> dict[str, list[str]]:
    """Return the keys of each class; in a grid one key chooses all photos, so no class has it."""
    keys: dict[str, list[str]] = {name: [] for name in classes}
    for key, name in key_bindings(classes).items():
        if name in keys and not (grid and key == _ALL):
            keys[name].append(key)
    return keys


def _refused(request: Request, error: GleanerError) -> Response:
    if CSRF_HEADER not in request.headers:
        raise error
    return JSONResponse(
        {"error": error_text(request, error)}, 503 if isinstance(error, TransientError) else 409
    )


def _ids(request: Request, name: str) -> Sequence[str]:
    ids = form(request).get(name, [])
    if len(ids) > MAX_AT_ONCE:
        raise PermanentError(
            Sentence("%(count)s photos at once are too many", count=len(ids)),
            hint=Sentence("choose at most %(most)s", most=MAX_AT_ONCE),
        )
    return ids


def _reasons(request: Request) -> object:
    gettext = translator(request).gettext
    return lambda photo: gettext(text) if (text := reason_text(photo)) else ""


PAGE = Page(
    name="review",
    path="/review",
    title=N_("Review"),
    icon="review",
    role="reviewer",
    routes=(
        Route("/review", _show),
        Route("/review/more", _more, methods=["POST"]),
        Route("/review/label", _label, methods=["POST"]),
        Route("/review/skip", _skip, methods=["POST"]),
        Route("/review/release", _release, methods=["POST"]),
        Route("/review/undo", _undo, methods=["POST"]),
    ),
)
