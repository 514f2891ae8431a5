"""Ask the mirror of a site to have a bundle, in the form that the mirror reads. Blocking."""

import http.client
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from typing import Annotated

import msgspec
from msgspec import Meta, Struct, structs

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


def at_mirror(mirror: str, release: Release, abandoned: Abandoned) -> Release:
    """Return a release with the URL of its bundle at a mirror, once the mirror has it.

    Args:
        mirror: Address of the mirror.
        release: As it was received.
        abandoned: Asked while the mirror fetches the bundle; True ends it.

    Raises:
        FetchError: The mirror cannot be reached, cannot get the bundle, or must not see its URL.
    """
    if mirror.startswith("http:") and without_secrets(release.url) != release.url:
        raise FetchError("the bundle's URL has a secret, which is not sent to a mirror without TLS")
    asked = msgspec.json.encode(Asked(release.url, release.sha256, release.size_bytes, release.parts))
    address = mirror.rstrip("/") + PATH
    deadline = time.monotonic() + _MOST_WAITING_S
    while time.monotonic() < deadline:
        status, text = _post(address, asked)
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


def _post(address: str, body: bytes) -> tuple[int, str]:
    # Without a proxy: the mirror is at this site.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})  # noqa: S310  # checked by the configuration
    try:
        with opener.open(request, timeout=_ANSWER_S) as answer:
            return answer.status, _text(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _text(error)
    except urllib.error.URLError as error:
        raise FetchError(f"no connection to the mirror: {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FetchError(f"no connection to the mirror: {str(error) or type(error).__name__}") from None


def _text(answer: http.client.HTTPResponse | urllib.error.HTTPError) -> str:
    return answer.read(_MOST_ANSWER_BYTES).decode(errors="replace")
