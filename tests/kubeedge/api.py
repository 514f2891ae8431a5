"""A minimal Kubernetes client."""

import asyncio
import http.client
import json
import ssl
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

from schemas.errors import TransientError

_CALL_S = 30.0
Thing = dict[str, Any]  # an object of Kubernetes as JSON


@dataclass(frozen=True, slots=True)
class Api:
    """The API server on this machine.

    Args:
        port: Port on 127.0.0.1.
        token: Bearer token of the user.
        authority: Certificate of the CA that signed the server's.
    """

    port: int
    token: str
    authority: Path

    async def read(self, path: str) -> Thing | None:
        """Return an object, or None if it does not exist.

        Raises:
            TransientError: The server cannot be reached or refuses the request.
        """
        status, body = await self._call("GET", path)
        if status == HTTPStatus.NOT_FOUND:
            return None
        return cast(Thing, json.loads(_good(status, body, path)))

    async def ready(self) -> bool:
        """Return True if the server is ready."""
        try:
            return (await self._call("GET", "/readyz"))[0] == HTTPStatus.OK
        except TransientError:
            return False

    async def create(self, path: str, thing: Thing | bytes) -> None:
        """Create an object from JSON or the text of a YAML file; an existing one is not changed.

        Raises:
            TransientError: The server cannot be reached or refuses the request.
        """
        body, kind = (thing, "yaml") if isinstance(thing, bytes) else (json.dumps(thing).encode(), "json")
        status, answer = await self._call("POST", path, body, f"application/{kind}")
        if status != HTTPStatus.CONFLICT:
            _good(status, answer, path)

    async def delete(self, path: str) -> None:
        """Delete an object, if it exists.

        Raises:
            TransientError: The server cannot be reached or refuses the request.
        """
        status, answer = await self._call("DELETE", path)
        if status != HTTPStatus.NOT_FOUND:
            _good(status, answer, path)

    async def _call(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> tuple[int, bytes]:
        return await asyncio.to_thread(self._exchange, method, path, body, kind)

    def _exchange(self, method: str, path: str, body: bytes | None, kind: str) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind}
        try:
            trust = ssl.create_default_context(cafile=self.authority)
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=_CALL_S, context=trust)
            try:
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                return response.status, response.read()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise TransientError(f"no response to {method} {path}: {error}") from None


def _good(status: int, body: bytes, path: str) -> bytes:
    if status >= HTTPStatus.BAD_REQUEST:
        raise TransientError(f"{path} failed: {status} {body.decode(errors='replace')}")
    return body
