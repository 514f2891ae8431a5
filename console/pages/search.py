"""Photos: browse what is stored, and find photos that look like one."""

import asyncio
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bus.diagnosis.sentence import Sentence
from cloud.dataset.curation import quoted
from cloud.dataset.store import HAS_IMAGE, Store
from cloud.evaluation.labelled_embeddings import camera_of
from console.context import Console, console_of
from console.web.languages import N_, translator
from console.web.navigation import Page
from console.web.parameters import id_in, is_id, whole_number
from console.web.rendering import render
from schemas.errors import PermanentError
from schemas.lanes import LANES

PER_PAGE = 48
ALIKE = 36
_MAX_FILTER_CHARS = 200
_COLUMNS = (
    "photo_id",
    "received_at_ms",
    "device",
    "node",
    "lane",
    "edge_label",
    "human_label",
    "teacher_label",
)
_FILTERS = {
    "node": "node",
    "device": "device",
    "label": "human_label",
    "answer": "edge_label",
    "lane": "lane",
}


class Found(NamedTuple):
    """A stored photo in a grid.

    Attributes:
        photo_id: Its id.
        label: The human one; empty without one.
        answer: The edge's model's; empty without one.
        where: Node and device, or empty for an imported photo.
        likeness: To the photo that is compared with; None in a list.
    """

    photo_id: str
    label: str
    answer: str
    where: str
    likeness: float | None = None


async def _browse(request: Request) -> Response:
    console = console_of(request)
    console.similar.wanted = True
    chosen = {name: request.query_params.get(name, "")[:_MAX_FILTER_CHARS] for name in _FILTERS}
    before = request.query_params.get("before", "")
    photos, following = await asyncio.to_thread(_page, console.store, chosen, before)
    return render(
        request,
        "search.html",
        {
            "photos": photos,
            "following": following,
            "chosen": chosen,
            "filters": _titles(request),
            "lanes": LANES,
            "first": not before,
        },
    )


async def _alike(request: Request) -> Response:
    console, photo_id = console_of(request), id_in(request)
    one, photos = await asyncio.to_thread(_search, console, photo_id)
    return render(
        request,
        "search/alike.html",
        {
            "one": one,
            "photos": photos,
            "searched": len(console.similar),
        },
    )


def _search(console: Console, photo_id: str) -> tuple[Found, list[Found]]:
    """Return a photo and those that look like it; blocks."""
    alike = console.similar.like(photo_id, ALIKE)
    found = console.store.find([photo_id, *(one.photo_id for one in alike)], [*_COLUMNS, "forgotten_at_ms"])
    rows = {key: row for key, row in found.items() if row["forgotten_at_ms"] is None}
    if photo_id not in rows:  # it was taken out since the search began
        raise PermanentError(Sentence("photo %(photo)s: not in the dataset", photo=photo_id))
    return _found(rows[photo_id]), [
        _found(rows[one.photo_id], one.likeness) for one in alike if one.photo_id in rows
    ]


def _page(store: Store, chosen: dict[str, str], before: str) -> tuple[list[Found], str]:
    """Return one page of photos, newest first, and where the next one begins; blocks."""
    parts = [HAS_IMAGE]
    parts += [f"{_FILTERS[name]} = {quoted(value)}" for name, value in chosen.items() if value]
    if (place := _place(before)) is not None:
        at_ms, photo_id = place
        # By the last photo, not by a number: pages stay the same while photos arrive, and none is read twice.
        parts.append(f"(received_at_ms < {at_ms} OR (received_at_ms = {at_ms} AND photo_id > '{photo_id}'))")
    order = ["-received_at_ms", "photo_id"]
    rows = list(store.scan(_COLUMNS, where=" AND ".join(parts), limit=PER_PAGE + 1, order=order))
    shown = rows[:PER_PAGE]
    following = f"{shown[-1]['received_at_ms']}-{shown[-1]['photo_id']}" if len(rows) > PER_PAGE else ""
    return [_found(row) for row in shown], following


def _place(text: str) -> tuple[int, str] | None:
    number, _, photo_id = text.partition("-")
    at_ms = whole_number(number)
    return None if at_ms is None or not is_id(photo_id) else (at_ms, photo_id)


def _found(row: dict[str, object], likeness: float | None = None) -> Found:
    return Found(
        str(row["photo_id"]),
        str(row["human_label"] or ""),
        str(row["edge_label"] or ""),
        camera_of(row),
        likeness,
    )


def _titles(request: Request) -> dict[str, str]:
    gettext = translator(request).gettext
    return {
        "node": gettext("Node"),
        "device": gettext("Device"),
        "label": gettext("Label by a person"),
        "answer": gettext("Answer of the model"),
        "lane": gettext("Lane"),
    }


PAGE = Page(
    name="search",
    path="/photos",
    title=N_("Photos"),
    icon="search",
    routes=(Route("/photos", _browse), Route("/photos/{photo_id}/alike", _alike)),
)
