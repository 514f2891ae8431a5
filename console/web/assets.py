"""Style sheet, scripts and icons, in memory and compressed, at addresses that change with them."""

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

_COMPRESSED = (".css", ".js", ".svg", ".webmanifest")
_FOREVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file for browsers.

    Args:
        content: Its bytes.
        compressed: The same with gzip; None if that saves nothing.
        media_type: For the header.
        version: Digest of the content.
    """

    content: bytes
    compressed: bytes | None
    media_type: str
    version: str


class Assets:
    """All files of `console/static`, and htmx from its package."""

    def __init__(self) -> None:
        folder = files("console") / "static"
        found = {path.name: path for path in folder.iterdir() if path.is_file()}
        # A package for Django that carries htmx's file; nothing of it is imported but its location.
        found["htmx.js"] = files("js_lib_htmx") / "static" / "htmx" / "htmx.min.js"
        self._assets = {name: _asset(name, path) for name, path in found.items()}

    def url(self, name: str) -> str:
        """Return the address of a file."""
        return f"/static/{name}?v={self._assets[name].version}"

    async def serve(self, request: Request) -> Response:
        """Answer `GET /static/{name}`."""
        asset = self._assets.get(request.path_params["name"])
        if asset is None:
            raise HTTPException(404)
        current = request.query_params.get("v") == asset.version
        headers = {"Cache-Control": _FOREVER if current else "no-cache", "Vary": "Accept-Encoding"}
        content = asset.content
        if asset.compressed is not None and "gzip" in request.headers.get("accept-encoding", ""):
            content, headers["Content-Encoding"] = asset.compressed, "gzip"
        return Response(content, headers=headers, media_type=asset.media_type)


def _asset(name: str, path: Traversable) -> Asset:
    content = path.read_bytes()
    compressed = gzip.compress(content, mtime=0) if name.endswith(_COMPRESSED) else None
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Asset(content, compressed, media_type, hashlib.sha256(content).hexdigest()[:12])
