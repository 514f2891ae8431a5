"""Quarantine: samples that could not be stored, and files of the dataset that cannot be read."""

import asyncio

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from cloud.dataset.damage import find_damage
from console.access.roles import requires
from console.context import console_of
from console.steering.curate import discard_letter, newest_letters
from console.web.languages import N_
from console.web.navigation import Page
from console.web.parameters import id_in
from console.web.rendering import render

_CHEAP = ["photo_id", "received_at_ms", "human_label"]
"""Columns that are read to find files that are missing, cut off or damaged; pictures would take minutes."""


async def _show(request: Request) -> Response:
    letters = await asyncio.to_thread(newest_letters, console_of(request).store)
    return render(
        request,
        "quarantine.html",
        {
            "letters": letters,
        },
    )


async def _damage(request: Request) -> Response:
    found = await asyncio.to_thread(find_damage, console_of(request).store.table, _CHEAP)
    return render(
        request,
        "quarantine/_damage.html",
        {
            "damage": found,
        },
    )


@requires("operator")
async def _discard(request: Request) -> Response:
    console, key = console_of(request), id_in(request, "key")
    await console.audit.record(request, "sample.discarded", sample=key)
    await asyncio.to_thread(discard_letter, console.store, key)
    return RedirectResponse("/quarantine?done=discarded", 303)


PAGE = Page(
    name="quarantine",
    path="/quarantine",
    title=N_("Quarantine"),
    icon="quarantine",
    routes=(
        Route("/quarantine", _show),
        Route("/quarantine/damage", _damage),
        Route("/quarantine/{key}/discard", _discard, methods=["POST"]),
    ),
)
