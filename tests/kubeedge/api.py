"""As much of a Kubernetes client as the laboratory needs."""

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
        port: On 127.0.0.1.
        token: Of the user.
        authority: The certificate that the server's own must come from.
    """

    port: int
    token: str
    authority: Path

    async def read(self, path: str) -> Thing | None:
        """Return an object, None where there is no such.

        Raises:
            TransientError: The server cannot be reached or refuses.
        """
        status, body = await self._call("GET", path)
        if status == HTTPStatus.NOT_FOUND:
            return None
        return cast(Thing, json.loads(_good(status, body, path)))

    async def ready(self) -> bool:
        """Tell whether the server answers and says that it is ready."""
        try:
            return (await self._call("GET", "/readyz"))[0] == HTTPStatus.OK
        except TransientError:
            return False

    async def create(self, path: str, thing: Thing | bytes) -> None:
        """Create an object, given as JSON or as the text of a YAML file; one that exists is left as it is.

        Raises:
            TransientError: The server cannot be reached or refuses.
        """
        body, kind = (thing, "yaml") if isinstance(thing, bytes) else (json.dumps(thing).encode(), "json")
        status, answer = await self._call("POST", path, body, f"application/{kind}")
        if status != HTTPStatus.CONFLICT:
            _good(status, answer, path)

    async def delete(self, path: str) -> None:
        """Delete an object; one that does not exist is fine.

        Raises:
            TransientError: The server cannot be reached or refuses.
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
            link = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=_CALL_S, context=trust)
            try:
                link.request(method, path, body, headers)
                answer = link.getresponse()
                return answer.status, answer.read()
            finally:
                link.close()
        except (OSError, http.client.HTTPException) as error:
            raise TransientError(f"{method} {path}", expected="an answer", got=error) from None


def _good(status: int, body: bytes, path: str) -> bytes:
    if status >= HTTPStatus.BAD_REQUEST:
        raise TransientError(path, expected="success", got=f"{status} {body.decode(errors='replace')}")
    return body
