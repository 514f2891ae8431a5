"""Thumbnails of stored photos, and of those that passed by at the broker."""

import asyncio
import re

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from console.context import console_of

_PHOTO_ID = re.compile(r"[0-9a-f]{32}")
_HEADERS = {"Cache-Control": "private, max-age=300"}


async def _stored(request: Request) -> Response:
    photo_id, size = request.path_params["photo_id"], request.path_params["size"]
    if _PHOTO_ID.fullmatch(photo_id) is None:
        raise HTTPException(404)
    pictures = console_of(request).pictures
    content = await asyncio.to_thread(pictures.get, photo_id, size)
    if content is None:
        raise HTTPException(404)
    return Response(content, media_type="image/jpeg", headers=_HEADERS)


async def _passed_by(request: Request) -> Response:
    content = console_of(request).previews.get(request.path_params["photo_id"])
    if content is None:
        raise HTTPException(404)
    return Response(content, media_type="image/jpeg", headers=_HEADERS)


ROUTES = (
    Route("/pictures/{photo_id}/{size:int}", _stored),
    Route("/previews/{photo_id}", _passed_by),
)
