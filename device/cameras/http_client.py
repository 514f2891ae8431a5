"""Requests to a camera with an HTTP address. Errors of aiohttp end here."""

import os
import re
from base64 import b64encode
from typing import TYPE_CHECKING

from device.cameras.base import CameraError
from schemas.distribution import install_command
from schemas.text import escaped, without_secrets

if TYPE_CHECKING:
    import aiohttp

_SILENCE_S = 10.0
_UNAUTHORIZED = 401
_OK = 200
_CHUNK_BYTES = 64 * 1024
_REASON_CHARS = 200


class HttpClient:
    """Client of one address, with Basic or Digest authentication as the camera asks for.

    Args:
        url: With user and password if necessary.
    """

    def __init__(self, url: str) -> None:
        self.subject = f"camera {without_secrets(url)}"
        self._url = url

    async def open(self) -> None:
        """Create the client; nothing is sent.

        Raises:
            CameraError: aiohttp is not installed, or takes no such address.
        """
        try:
            import aiohttp  # noqa: PLC0415  # megabytes that only this camera needs
            import yarl  # noqa: PLC0415  # aiohttp's URLs
        except ImportError:
            raise CameraError(
                f"{self.subject} needs aiohttp", hint=f"install it with: {install_command('http')}"
            ) from None
        self._aiohttp = aiohttp
        try:
            url = yarl.URL(self._url)
        except ValueError as error:
            raise self._failure(error) from None
        # Never sent with the first request: a camera that asks for Digest must not get it in the clear.
        self._login = None if url.user is None else (url.user, url.password or "")
        self._address = url.with_user(None)
        self._session = aiohttp.ClientSession(
            middlewares=() if self._login is None else (aiohttp.DigestAuthMiddleware(*self._login),),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_SILENCE_S, sock_read=_SILENCE_S),
            # A connection for each photo: some cameras close it without a word.
            connector=aiohttp.TCPConnector(force_close=True),
            cookie_jar=aiohttp.CookieJar(unsafe=True),  # cameras have numbers for names
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def get(self) -> "aiohttp.ClientResponse":
        """Request the address; the caller closes the response.

        Raises:
            CameraError: The camera cannot be reached or does not answer with status 200.
        """
        try:
            response = await self._session.get(self._address)
            challenges = [one.lower() for one in response.headers.getall("WWW-Authenticate", ())]
            asks_for_basic = any(one.startswith("basic") for one in challenges)
            # Not where Digest, which was tried, is the camera's first choice.
            asks_for_basic = asks_for_basic and not challenges[0].startswith("digest")
            if response.status == _UNAUTHORIZED and self._login and asks_for_basic:
                response.close()
                response = await self._session.get(self._address, headers=_basic(*self._login))
        # ValueError: what a camera sent, such as a redirection, is not a URL or text.
        except (self._aiohttp.ClientError, OSError, ValueError) as error:
            raise self._failure(error) from None
        if response.status != _OK:
            response.close()
            asks = response.status == _UNAUTHORIZED
            raise CameraError(
                f"{self.subject} answered {response.status} {escaped(response.reason, _REASON_CHARS)}",
                hint="write the address as http://USER:PASSWORD@HOST/…" if asks else None,
            )
        return response

    async def chunk(self, response: "aiohttp.ClientResponse") -> bytes:
        """Return the next bytes of a response; empty at its end.

        Raises:
            CameraError: The connection broke, or was silent for ten seconds.
        """
        try:
            return await response.content.read(_CHUNK_BYTES)
        except (self._aiohttp.ClientError, OSError, ValueError) as error:
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> CameraError:
        if isinstance(error, self._aiohttp.RedirectClientError | self._aiohttp.NonHttpUrlClientError):
            return CameraError(f"{self.subject} redirects to an address that is not valid for HTTP")
        if isinstance(error, self._aiohttp.TooManyRedirects):
            return CameraError(f"{self.subject} redirects without end", hint="check user and password")
        if isinstance(error, self._aiohttp.ClientConnectorError):
            number = error.os_error.errno or 0  # below 0: of the resolver, which has its own messages
            reason = os.strerror(number) if number > 0 else str(error.os_error.strerror or "no connection")
            return CameraError(
                f"{self.subject} cannot be reached: {reason}",
                hint="check the address, and that the camera is on",
            )
        # aiohttp's sentences may contain the whole address, and may have several lines, which quote bytes.
        reason = re.sub(r"\S+://\S+", "the address", " ".join(str(error).split()))
        reason = escaped(reason[:_REASON_CHARS])
        return CameraError(f"{self.subject}: {reason or type(error).__name__}")


def _basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}
