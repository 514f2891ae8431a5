"""Doubts: labels that are probably wrong, to look at, correct or take out."""

import asyncio
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from bus.diagnosis.sentence import Sentence
from cloud.evaluation.labelled_embeddings import camera_of
from cloud.labeling.label_judgement import LabelError
from console.access.audit_trail import client_of
from console.access.roles import requires, visitor
from console.context import Console, console_of
from console.steering.curate import forget, relabel
from console.steering.publish import forget_at_edges
from console.web.guard import field
from console.web.languages import N_
from console.web.navigation import Page
from console.web.parameters import id_in
from console.web.rendering import render
from schemas.errors import PermanentError

SHOWN = 48
"""Most doubts on the page: the least credible ones."""


class Doubt(NamedTuple):
    """A doubtful label with its photo, as it is now."""

    error: LabelError
    camera: str
    source: str


async def _show(request: Request) -> Response:
    return render(request, "doubts.html", await _values(console_of(request)))


async def _part(request: Request) -> Response:
    return render(request, "doubts/_photos.html", await _values(console_of(request)))


@requires("reviewer")
async def _relabel(request: Request) -> Response:
    console, photo_id, label = console_of(request), id_in(request), field(request, "label")
    row = await asyncio.to_thread(_row, console, photo_id)
    person = visitor(request)
    if row["node"] is not None:
        # A sample's label goes out as Feedback, so that others at the broker see it.
        await console.desk.label(person, client_of(request), [photo_id], label)
    else:
        await console.audit.record(request, "label.corrected", photo=photo_id, label=label)
        await asyncio.to_thread(relabel, console.store, photo_id, label, person.name)
    console.insights.settle(photo_id)
    console.broadcast.changed("labels")
    return _back(request, "labelled")


@requires("operator")
async def _confirm(request: Request) -> Response:
    photo_id = id_in(request)
    row = await asyncio.to_thread(_row, console_of(request), photo_id)
    return render(
        request,
        "doubts/confirm.html",
        {
            "photo_id": photo_id,
            "row": row,
            "back": _origin(request.query_params.get("back", "")),
        },
    )


@requires("operator")
async def _forget(request: Request) -> Response:
    console, photo_id = console_of(request), id_in(request)
    await console.audit.record(request, "photo.forgotten", photo=photo_id)
    cache, person = console.insights.cache_dir, visitor(request).name
    await forget_at_edges(console, photo_id)
    await asyncio.to_thread(forget, console.store, photo_id, person, cache)
    await asyncio.to_thread(console.pictures.forget, [photo_id])
    console.previews.forget([photo_id])
    console.insights.settle(photo_id)
    console.broadcast.changed("dataset")
    return _back(request, "forgotten")


async def _values(console: Console) -> dict[str, object]:
    latest = console.insights.latest()
    doubts = [] if latest is None else await asyncio.to_thread(_current, console, latest.doubts)
    return {
        "insights": latest,
        "problem": console.insights.problem,
        "doubts": doubts[:SHOWN],
        "more": max(0, len(doubts) - SHOWN),
    }


def _current(console: Console, errors: list[LabelError]) -> list[Doubt]:
    """Return the doubts whose photo still has that label; blocks."""
    open_ones = [one for one in errors if not console.insights.is_settled(one.photo_id)][: 2 * SHOWN]
    rows = console.store.find(
        [one.photo_id for one in open_ones], ["human_label", "node", "device", "source", "forgotten_at_ms"]
    )
    return [
        Doubt(one, camera_of(row), str(row["source"] or ""))
        for one in open_ones
        if (row := rows.get(one.photo_id)) is not None
        and row["human_label"] == one.label
        and row["forgotten_at_ms"] is None
    ]


def _row(console: Console, photo_id: str) -> dict[str, object]:
    columns = ["node", "device", "human_label", "received_at_ms", "forgotten_at_ms"]
    row = console.store.find([photo_id], columns).get(photo_id)
    if row is None or row["forgotten_at_ms"] is not None or row["received_at_ms"] is None:
        raise PermanentError(Sentence("photo %(photo)s: not in the dataset", photo=photo_id))
    return row


def _origin(path: str) -> str:
    """Return the page to return to, one of this console."""
    return path if path in ("/doubts", "/photos") else "/doubts"


def _back(request: Request, done: str) -> Response:
    return RedirectResponse(f"{_origin(field(request, 'back'))}?done={done}", 303)


PAGE = Page(
    name="doubts",
    path="/doubts",
    title=N_("Doubts"),
    icon="doubts",
    routes=(
        Route("/doubts", _show),
        Route("/doubts/photos", _part),
        Route("/doubts/{photo_id}/label", _relabel, methods=["POST"]),
        Route("/doubts/{photo_id}/forget", _confirm),
        Route("/doubts/{photo_id}/forget", _forget, methods=["POST"]),
    ),
)
