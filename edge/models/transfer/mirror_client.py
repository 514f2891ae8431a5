"""Ask the mirror of a site to have a bundle, in the form that the mirror reads. Blocking."""

import http.client
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

import msgspec
from msgspec import Meta, Struct, structs

from bus.config import ConfigError, Tls
from bus.http_source import Reach
from bus.mqtt import tls
from edge.models.transfer.bundle_source import Abandoned, FetchError
from schemas.field_types import Sha256
from schemas.messages import Release
from schemas.text import escaped, without_secrets

PATH = "/v1/bundles"
_ANSWER_S = 30.0
_MOST_WAITING_S = 4 * 3600.0
"""The mirror has its own deadline for a slow download; this only ends the polling."""
_MOST_ANSWER_BYTES = 2048


class Asked(Struct, frozen=True):
    """A request for a bundle, with the fields of its release."""

    url: Annotated[str, Meta(min_length=1, max_length=2048)]
    sha256: Sha256
    size_bytes: Annotated[int, Meta(ge=1, le=2**40)]
    parts: Sha256 | None = None


@dataclass(frozen=True, slots=True)
class SiteMirror:
    """The mirror of a site.

    Attributes:
        url: Its address.
        files: Of the edge's connection to its broker: over HTTPS their certificate is presented, and their CA
            is trusted in addition to the system's. None: neither.
    """

    url: str
    files: Tls | None = None

    def reach(self) -> Reach:
        """Return how it is reached: not through a proxy, as it is at this site.

        The files are read at each call, so that a renewed certificate takes effect.

        Raises:
            FetchError: A file cannot be used.
        """
        if self.files is None or not self.url.startswith("https:"):
            return Reach(proxied=False)
        try:
            # Without the list of revoked certificates: it has none of the system's authorities, and what a
            # mirror gives is verified.
            context = tls.context(structs.replace(self.files, crl=None))
        except ConfigError as error:
            raise FetchError(f"cannot connect to the mirror: {error}") from None
        context.load_default_certs()
        return Reach(proxied=False, tls=context)


def at_mirror(mirror: str, release: Release, abandoned: Abandoned, reach: Reach) -> Release:
    """Return a release with the URL of its bundle at a mirror, once the mirror has it.

    Args:
        mirror: Address of the mirror.
        release: As it was received.
        abandoned: Asked while the mirror fetches the bundle; True ends it.
        reach: How the mirror is reached.

    Raises:
        FetchError: The mirror cannot be reached, cannot get the bundle, or must not see its URL.
    """
    if mirror.startswith("http:") and without_secrets(release.url) != release.url:
        raise FetchError("the bundle's URL has a secret, which is not sent to a mirror without TLS")
    asked = msgspec.json.encode(Asked(release.url, release.sha256, release.size_bytes, release.parts))
    address = mirror.rstrip("/") + PATH
    deadline = time.monotonic() + _MOST_WAITING_S
    while time.monotonic() < deadline:
        status, text = _post(address, asked, reach)
        if status == HTTPStatus.OK:
            return structs.replace(release, url=f"{address}/{release.sha256}.tar")
        if status != HTTPStatus.ACCEPTED:
            raise FetchError(f"the mirror answered {status}: {escaped(text)}")
        if abandoned():
            raise FetchError("a newer release arrived")
    raise FetchError(f"the mirror was still fetching after {_MOST_WAITING_S:.0f} s")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: a mirror has none, and the body may have a secret."""

    def redirect_request(self, *_: object) -> None:
        """Refuse."""


def _post(address: str, body: bytes, reach: Reach) -> tuple[int, str]:
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler(None if reach.proxied else {}),
        urllib.request.HTTPSHandler(context=reach.tls),
        _NoRedirect(),
    )
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})  # noqa: S310  # checked by the configuration
    try:
        with opener.open(request, timeout=_ANSWER_S) as answer:
            return answer.status, _text(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _text(error)
    except urllib.error.URLError as error:
        raise _unreachable(error.reason, reach) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _unreachable(error, reach) from None


def _unreachable(error: object, reach: Reach) -> FetchError:
    reason = str(error) or type(error).__name__
    # A server refuses a certificate by an alert, or by the end of the connection.
    closed = isinstance(error, ssl.SSLError | ConnectionError) and not isinstance(
        error, ssl.SSLCertVerificationError | ConnectionRefusedError
    )
    if reach.tls is not None and closed:
        reason = f"it may not accept the certificate of this edge: {reason}"
    return FetchError(f"no connection to the mirror: {reason}")


def _text(answer: http.client.HTTPResponse | urllib.error.HTTPError) -> str:
    return answer.read(_MOST_ANSWER_BYTES).decode(errors="replace")
