"""Thumbnails of stored photos, and of those that passed by at the broker."""

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from console.context import console_of
from console.web.parameters import id_in, number_in

_HEADERS = {"Cache-Control": "private, max-age=300"}


async def _stored(request: Request) -> Response:
    photo_id, size = id_in(request), number_in(request, "size")
    content = await asyncio.to_thread(console_of(request).pictures.get, photo_id, size)
    if content is None:
        raise HTTPException(404)
    return Response(content, media_type="image/jpeg", headers=_HEADERS)


async def _passed_by(request: Request) -> Response:
    content = console_of(request).previews.get(id_in(request))
    if content is None:
        raise HTTPException(404)
    return Response(content, media_type="image/jpeg", headers=_HEADERS)


ROUTES = (
    Route("/pictures/{photo_id}/{size}", _stored),
    Route("/previews/{photo_id}", _passed_by),
)
