"""Read a URL by HTTP as a stream, with plain sentences for what goes wrong. Blocking."""

import http.client
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Self

from schemas.errors import TransientError

_OK = 200
_PARTIAL = 206


class HttpError(TransientError):
    """The server answered something else than the file, or not at all.

    Args:
        reason: What happened.
        status: The server's answer, None without one.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Reach:
    """How a server is reached.

    Attributes:
        proxied: through the proxy that the environment names, if it names one.
        tls: context of HTTPS; None for the system's authorities and no certificate of our own.
    """

    proxied: bool = True
    tls: ssl.SSLContext | None = None


ANYWHERE = Reach()


class HttpSource:
    """The body of one URL, or a range of it, read as it arrives.

    Redirects are followed, ten at most, to HTTP only.

    Args:
        url: http or https.
        read_s: How long no byte may arrive, in seconds.
        span: Offset and number of the bytes to ask for; the whole file by default.
        reach: How the server is reached.

    Raises:
        HttpError: There is no such file, or the server cannot be reached.
    """

    def __init__(
        self, url: str, read_s: float, span: tuple[int, int] | None = None, reach: Reach = ANYWHERE
    ) -> None:
        self._received_bytes = 0
        # Without the handlers for file and ftp, to which a server could redirect.
        opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(None if reach.proxied else {}),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(context=reach.tls),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.UnknownHandler(),
        ):
            opener.add_handler(handler)
        # Not compressed: the size is compared before anything is read.
        request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})  # noqa: S310  # no file handler
        if span is not None:
            request.add_header("Range", f"bytes={span[0]}-{span[0] + span[1] - 1}")
        try:
            self._response = opener.open(request, timeout=read_s)
        except urllib.error.HTTPError as error:
            error.close()
            raise HttpError(
                f"the server answered {error.code} {error.msg.splitlines()[0]}", error.code
            ) from None
        except urllib.error.URLError as error:
            raise HttpError(f"no connection: {error.reason}") from None
        except http.client.InvalidURL:  # its message quotes a part of the URL, which can be a password
            raise HttpError("no connection: the URL has no valid host, port and path") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise HttpError(f"no connection: {str(error) or type(error).__name__}") from None
        wanted, status = _OK if span is None else _PARTIAL, self._response.status
        if status != wanted:
            self._response.close()
            raise HttpError(f"the server answered {status} instead of {wanted}", status)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._response.close()

    @property
    def size_bytes(self) -> int | None:
        """Size of the body as the server states it, None if it does not."""
        stated = self._response.headers.get("Content-Length", "")
        return int(stated) if stated.isdecimal() else None

    def read(self, most_bytes: int) -> bytes:
        """Return what has arrived, at least one byte and at most `most_bytes`; empty at the end.

        Raises:
            HttpError: The connection broke, or nothing arrived in time.
        """
        try:
            chunk = bytes(self._response.read1(most_bytes))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise HttpError(f"the connection broke: {str(error) or type(error).__name__}") from None
        self._received_bytes += len(chunk)
        stated = self.size_bytes
        if not chunk and stated is not None and self._received_bytes < stated:
            raise HttpError(f"the connection broke after {self._received_bytes} of {stated} bytes")
        return chunk
