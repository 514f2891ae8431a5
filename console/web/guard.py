"""Let only people in who are known, and only requests that their own pages sent; add the security headers."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast
from urllib.parse import parse_qs, urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from console.access.audit_trail import AuditTrail, client_of
from console.access.login import Login
from console.access.sessions import Session, Sessions
from console.web.csrf import is_token, masked
from console.web.languages import translator
from schemas.errors import PermanentError

log = structlog.get_logger()

CSRF_FIELD = "csrf"
CSRF_HEADER = "x-csrf-token"
MAX_BODY_BYTES = 262_144
"""Largest body of a request: the ids of some thousand photos."""
MAX_BODY_S = 30.0
"""Longest time, in seconds, until the body of a request has arrived."""
LOGIN_PATH = "/login"

_OPEN_PATHS = (LOGIN_PATH, "/static/", "/manifest.webmanifest", "/language")
_SAFE_METHODS = ("GET", "HEAD")
_MAX_FIELDS = 10_000
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}

Form = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Cookie:
    """The session's cookie.

    Args:
        name: Differs between consoles of one machine, as browsers share cookies between the ports of a host.
        secure: Whether the console is reached by HTTPS.
        max_age_s: When the browser forgets it, in seconds.
    """

    name: str
    secure: bool
    max_age_s: int

    def put(self, response: Response, value: str) -> None:
        """Set it; an empty value removes it."""
        response.set_cookie(
            self.name,
            value,
            max_age=self.max_age_s if value else 0,
            httponly=True,
            secure=self.secure,
            samesite="lax",
        )


class Guard:
    """Middleware in front of every endpoint. Default deny: what is not open needs a session.

    Args:
        app: The application behind it.
        hosts: Names under which the console may be addressed, without ports; others are refused, as a page of
            another site could have its name lead to this machine.
        sessions: People who are logged in.
        login: The ways to log in.
        audit: Where a log-in by a one-time address is recorded.
        cookie: The session's cookie.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Iterable[str],
        sessions: Sessions,
        login: Login,
        audit: AuditTrail,
        cookie: Cookie,
    ) -> None:
        self._app = app
        self._hosts = frozenset(hosts)
        self._sessions = sessions
        self._login = login
        self._audit = audit
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; other connections than HTTP are closed."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        scope.setdefault("state", {})
        reply = _with_headers(send, secure=self._cookie.secure)
        refusal = await self._check(scope, receive)
        if refusal is not None:
            await refusal(scope, receive, reply)
            return
        new_cookie: str | None = scope["state"].pop("new_cookie", None)
        if new_cookie is not None:
            reply = _with_cookie(reply, self._cookie, new_cookie)
        await self._app(scope, _replayed(scope, receive), reply)

    async def _check(self, scope: Scope, receive: Receive) -> Response | None:
        """Find the visitor, read the form; return the answer to a request that is refused."""
        headers, _ = Headers(scope=scope), translator(Request(scope)).gettext
        if _hostname(headers.get("host", "")) not in self._hosts:
            return PlainTextResponse(
                _("this console has another name; see “hosts” in its configuration") + "\n", 421
            )
        try:
            session = await self._session(scope, headers)
        except PermanentError as error:
            # The sentence names a file, which is not for strangers.
            log.warning("console.request_failed", path=scope["path"], error=str(error))
            return PlainTextResponse(_("the accounts cannot be read; the log says why") + "\n", 503)
        scope["state"]["session"] = session
        scope["state"]["visitor"] = None if session is None else session.visitor
        if scope["method"] not in _SAFE_METHODS:
            refusal = await self._read_form(scope, receive, session)
            if refusal is not None:
                return refusal
        if session is None and not scope["path"].startswith(_OPEN_PATHS):
            return await self._enter(scope)
        return None

    async def _read_form(self, scope: Scope, receive: Receive, session: Session | None) -> Response | None:
        """Read the body of a change; return the answer to one that does not come from a page of ours."""
        headers, _ = Headers(scope=scope), translator(Request(scope)).gettext
        try:
            async with asyncio.timeout(MAX_BODY_S):
                body = await _body(receive)
        except TimeoutError:
            return PlainTextResponse(_("the request did not arrive in time") + "\n", 408)
        if body is None:
            return PlainTextResponse(_("the request is too large") + "\n", 413)
        scope["state"]["body"] = body
        scope["state"]["form"] = _fields(headers, body)
        if not _is_own(scope, headers, session):
            return PlainTextResponse(_("this page is too old: load it again") + "\n", 403)
        return None

    async def _session(self, scope: Scope, headers: Headers) -> Session | None:
        """Return the session of a request; one whose account was removed or changed ends here.

        Raises:
            PermanentError: The accounts cannot be read.
        """
        value = cookie_parser(headers.get("cookie", "")).get(self._cookie.name)
        session = await self._sessions.find(value)
        if session is not None and not self._login.believes(session.person):
            await self._sessions.end(value)
            session = None
        if not self._login.behind_proxy:
            return session
        client = scope["client"][0] if scope.get("client") else None
        person = self._login.by_proxy(client, dict(headers))
        if person is None:
            return None  # a user of a proxy is known while the proxy names them
        if session is not None and session.person == person:
            return session
        scope["state"]["new_cookie"] = cookie = await self._sessions.begin(person)
        return await self._sessions.find(cookie)

    async def _enter(self, scope: Scope) -> Response:
        """Answer a stranger: by a one-time address they become known, else they have to log in."""
        request = Request(scope)
        token = request.query_params.get("token", "") if scope["path"] == "/" else ""
        if token and (person := self._login.by_token(token)) is not None:
            response: Response = RedirectResponse("/", 303)
            self._cookie.put(response, await self._sessions.begin(person))
            await self._audit.record_as(person.name, client_of(request), "login.succeeded", role=person.role)
            return response
        if scope["method"] == "GET" and "text/html" in request.headers.get("accept", ""):
            if "hx-request" in request.headers:
                return Response(status_code=401, headers={"HX-Redirect": LOGIN_PATH})
            return RedirectResponse(LOGIN_PATH, 303)
        text = translator(request).gettext("log in first")
        return PlainTextResponse(f"{text}\n", 401, headers={"HX-Redirect": LOGIN_PATH})


def form(request: Request) -> Form:
    """Return the fields of a POST."""
    return cast("Form", request.scope["state"].get("form", {}))


def field(request: Request, name: str, default: str = "") -> str:
    """Return the first value of a field of a POST."""
    return form(request).get(name, [default])[0]


def csrf_token(request: Request) -> str:
    """Return the token that the visitor's changes must carry, masked; empty for a stranger."""
    state = request.scope["state"]
    session: Session | None = state.get("session")
    if session is None:
        return ""
    # One mask for all places of an answer: they compress better.
    token: str = state.setdefault("csrf", masked(session.csrf))
    return token


def _is_own(scope: Scope, headers: Headers, session: Session | None) -> bool:
    """Return whether a change comes from a page of this console."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        return False
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    if session is None:
        return True  # a stranger can only log in
    fields: Form = scope["state"]["form"]
    token = headers.get(CSRF_HEADER) or fields.get(CSRF_FIELD, [""])[0]
    return is_token(token, session.csrf)


def _fields(headers: Headers, body: bytes) -> Form:
    if not headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return {}
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:  # no UTF-8, or too many
        return {}


async def _body(receive: Receive) -> bytes | None:
    """Read the body of a request; None if it is too large."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _replayed(scope: Scope, receive: Receive) -> Receive:
    """Return what the application receives: the body, if it was read already, then what still comes."""
    body: bytes | None = scope["state"].pop("body", None)

    async def receive_again() -> Message:
        nonlocal body
        if body is None:
            return await receive()
        read, body = body, None
        return {"type": "http.request", "body": read, "more_body": False}

    return receive_again


def _with_headers(send: Send, *, secure: bool) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(_HEADERS)
            if secure:
                headers["Strict-Transport-Security"] = "max-age=31536000"
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return send_with_headers


def _with_cookie(send: Send, cookie: Cookie, value: str) -> Send:
    async def send_with_cookie(message: Message) -> None:
        if message["type"] == "http.response.start":
            response = Response()
            cookie.put(response, value)
            MutableHeaders(scope=message).append("Set-Cookie", response.headers["set-cookie"])
        await send(message)

    return send_with_cookie


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
