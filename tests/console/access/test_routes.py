"""Rules of all routes: who may use each; one that is not listed here fails."""

import http.client
import urllib.parse
from http import HTTPStatus

import pytest
from starlette.routing import Route

from console.access.roles import ROLES
from console.web.app import create_app
from console.web.guard import Cookie
from tests.conftest import DEADLINE_S
from tests.console.access.test_access import Client, with_accounts

STRANGER = "stranger"
LONG = "9" * 5000
LEAST: dict[str, str] = {
    "GET /login": STRANGER,
    "POST /login": STRANGER,
    "POST /language": STRANGER,
    "GET /manifest.webmanifest": STRANGER,
    "GET /static/{name}": STRANGER,
    "POST /logout": "viewer",
    "GET /": "viewer",
    "GET /live": "viewer",
    "GET /live/changed": "viewer",
    "GET /pictures/{photo_id}/{size}": "viewer",
    "GET /previews/{photo_id}": "viewer",
    "GET /now": "viewer",
    "GET /now/health": "viewer",
    "GET /progress": "viewer",
    "GET /progress/figures": "viewer",
    "GET /models": "viewer",
    "GET /models/compare": "viewer",
    "GET /models/{version}": "viewer",
    "GET /rollout": "viewer",
    "GET /fleet": "viewer",
    "GET /policy": "viewer",
    "GET /policy/{node}": "viewer",
    "GET /photos": "viewer",
    "GET /photos/{photo_id}/alike": "viewer",
    "GET /doubts": "viewer",
    "GET /doubts/photos": "viewer",
    "GET /quarantine": "viewer",
    "GET /quarantine/damage": "viewer",
    "GET /events": "viewer",
    "GET /review": "reviewer",
    "POST /review/more": "reviewer",
    "POST /review/label": "reviewer",
    "POST /review/skip": "reviewer",
    "POST /review/release": "reviewer",
    "POST /review/undo": "reviewer",
    "POST /doubts/{photo_id}/label": "reviewer",
    "GET /audit": "operator",
    "GET /doubts/{photo_id}/forget": "operator",
    "POST /doubts/{photo_id}/forget": "operator",
    "POST /quarantine/{key}/discard": "operator",
    "GET /rollout/confirm": "operator",
    "POST /rollout/steer": "operator",
    "POST /policy/{node}/preview": "operator",
    "POST /policy/{node}": "operator",
}
"""The least role that may use a route; what is behind it may still be missing."""
VALUES = {"{name}": "console.css", "{size}": "320", "{version}": "1", "{node}": "edge-1"}


@pytest.fixture(scope="module")
def console(tmp_path_factory, mosquitto):
    """A console with an account for each role."""
    with with_accounts(tmp_path_factory.mktemp("routes"), mosquitto) as running:
        running.report()
        running.wait_until(lambda: running.shown.live.statuses)
        yield running


def test_every_route_is_listed(console):
    """A new one has to declare who may use it."""
    app = create_app(console.shown, hosts=[], cookie=Cookie("c", secure=False, max_age_s=60))
    routes = [one for one in app.routes if isinstance(one, Route)]
    assert len(routes) == len(app.routes)
    assert {f"{method} {one.path}" for one in routes for method in one.methods - {"HEAD"}} == LEAST.keys()


@pytest.mark.parametrize("role", [STRANGER, *ROLES])
def test_a_route_answers_only_whom_it_may(console, role):
    """A stranger is sent to the login, a role that is not enough is refused, any other gets past."""
    client = Client(console)
    if role != STRANGER:
        client.log_in(f"a {role}")
    token = "" if role == STRANGER else client.csrf()
    ranks = [STRANGER, *ROLES]
    wrong = {}
    for route, least in LEAST.items():
        if least == STRANGER or (route == "POST /logout" and role != STRANGER):
            continue
        status = asked(client, route, token)
        refused = HTTPStatus.UNAUTHORIZED if role == STRANGER else HTTPStatus.FORBIDDEN
        if (status == refused) != (ranks.index(role) < ranks.index(least)) or status >= 500:
            wrong[route] = status
    assert wrong == {}


@pytest.mark.parametrize("token", ["", "0" * 64])
def test_every_change_needs_the_token(console, token):
    """No POST of somebody who is logged in does anything without the token of the session."""
    client = Client(console)
    client.log_in("a operator")
    changes = [route for route in LEAST if route.startswith("POST ")]
    assert len(changes) > 10
    assert {asked(client, route, token) for route in changes} == {HTTPStatus.FORBIDDEN}
    assert client.ask("GET", "/now")[0] == HTTPStatus.OK


def test_a_request_for_the_head_of_the_stream_has_an_end(console):
    """The connection answers the next request, and no stream stays open."""
    client = Client(console)
    client.log_in("a viewer")
    connection = http.client.HTTPConnection(client.host, timeout=DEADLINE_S)
    for method, path in (("HEAD", "/live"), ("GET", "/now")):
        connection.request(method, path, headers={"Cookie": client.cookie})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == HTTPStatus.OK
    connection.close()
    assert len(console.shown.broadcast) == 0


@pytest.mark.parametrize("role", [STRANGER, "operator"])
def test_every_answer_forbids_what_is_not_ours(console, role):
    """Pages, parts, pictures, streams, files, redirections and refusals alike."""
    client = Client(console)
    if role != STRANGER:
        client.log_in(f"a {role}")
    token = "" if role == STRANGER else client.csrf()
    for route in [*(one for one in LEAST if one != "POST /logout"), "GET /nothing-here", "DELETE /now"]:
        asked(client, route, token)
        policy = client.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';"), route
        assert "unsafe" not in policy, route
        assert client.headers["x-content-type-options"] == "nosniff", route


@pytest.mark.parametrize(
    "path",
    [
        f"/live/changed?since={LONG}", f"/models/{LONG}", f"/pictures/{'0' * 32}/{LONG}",
        f"/audit?before={LONG}", f"/photos?before={LONG}-{'0' * 32}", f"/photos?before=%D9%A3-{'0' * 32}",
        "/photos?label=%00%27",
        f"/models/compare?version={LONG}&version=1", "/models/%D9%A3", "/previews/%00", "/policy/%00",
        f"/events?event=%00&node={LONG}", "/photos/%2e%2e/alike", "/rollout/confirm?action=%00",
    ],
)  # fmt: skip
def test_a_strange_address_is_no_error_of_the_console(console, path):
    """Numbers of thousands of digits, digits of other scripts, and what no name has lead nowhere."""
    client = Client(console)
    client.log_in("a operator")
    assert client.ask("GET", path)[0] in (HTTPStatus.OK, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)


def asked(client, route: str, token: str) -> int:
    """Return the status of a request without a page's fields; of a stream, without reading on."""
    method, _, path = route.partition(" ")
    for name, value in VALUES.items():
        path = path.replace(name, value)
    path = path.replace("{photo_id}", "0" * 32).replace("{key}", "0" * 32)
    connection = http.client.HTTPConnection(client.host, timeout=60)
    headers = {"Cookie": client.cookie, "X-CSRF-Token": token, "Accept": "application/json"}
    body = urllib.parse.urlencode({"back": "/"}) if method == "POST" else None
    if body is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    client.headers = {name.lower(): value for name, value in answer.getheaders()}
    connection.close()
    return answer.status


def test_what_is_open_shows_nothing_of_the_system(console):
    """Login, language, style and manifest: the same for everybody, and no word of a node or photo."""
    client = Client(console)
    for route in (one for one, least in LEAST.items() if least == STRANGER):
        method, _, path = route.partition(" ")
        status, body = client.ask(method, path.replace("{name}", "console.css"))
        assert status not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND), route
        assert "edge-1" not in body
