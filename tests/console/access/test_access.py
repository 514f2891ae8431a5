"""Rules of console/access and console/web/guard.py: what people get depends on their role."""

import http.client
import json
import socket
import urllib.parse
from contextlib import ExitStack, contextmanager
from http import HTTPStatus

import pytest

from bus.files.atomic_file import write_atomic
from console.access.accounts import Accounts
from console.access.login_backoff import FREE_ATTEMPTS
from console.config import ConsoleConfig, Proxy
from console.exposure import check_exposure
from console.pages import PAGES
from console.web import guard
from schemas.errors import PermanentError
from tests.conftest import DEADLINE_S
from tests.console.conftest import running_console

PASSWORD = "correct horse battery"
PEOPLE = ("viewer", "reviewer", "operator")


@contextmanager
def with_accounts(folder, mosquitto, **fields):
    """Run a console with an account for each role."""
    accounts = Accounts(folder / "accounts.json")
    for role in PEOPLE:
        accounts.put(f"a {role}", role, PASSWORD)
    with running_console(folder, mosquitto, 4, accounts=str(folder / "accounts.json"), **fields) as running:
        yield running


@pytest.fixture(scope="module")
def console(tmp_path_factory, mosquitto):
    """A console with an account for each role."""
    with with_accounts(tmp_path_factory.mktemp("access"), mosquitto) as running:
        yield running


class Client:
    """A browser without script: cookies, and headers as a browser sends them.

    Args:
        console: The console.
        headers: Further headers of each request.
    """

    def __init__(self, console, **headers: str) -> None:
        self.host = urllib.parse.urlsplit(console.url).netloc
        self._headers = {"Accept": "text/html"} | headers
        self.cookie = ""
        self.headers: dict[str, str] = {}

    def go_to(self, console) -> None:
        """Address another console, with the same cookie under its name there."""
        before, self.host = self.host, urllib.parse.urlsplit(console.url).netloc
        # The name of the cookie, which is first, has the port in it.
        self.cookie = self.cookie.replace(before.partition(":")[2], self.host.partition(":")[2], 1)

    def ask(
        self, method: str, path: str, fields: dict[str, str] | None = None, **headers: str
    ) -> tuple[int, str]:
        """Send a request; return status and body."""
        status, body = self._exchange(method, path, fields, headers)
        return status, body.decode(errors="replace")

    def ask_bytes(self, path: str, **headers: str) -> bytes:
        """Send a GET; return the body as it was sent."""
        return self._exchange("GET", path, None, headers)[1]

    def _exchange(
        self, method: str, path: str, fields: dict[str, str] | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        connection = self._connect()
        sent = self._headers | {"Cookie": self.cookie} | headers
        if fields is not None:
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request(
            method, path, urllib.parse.urlencode(fields or {}) if method == "POST" else None, sent
        )
        answer = connection.getresponse()
        body = answer.read()
        self.headers = {name.lower(): value for name, value in answer.getheaders()}
        if "set-cookie" in self.headers:
            self.cookie = self.headers["set-cookie"].partition(";")[0]
        connection.close()
        return answer.status, body

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, timeout=60)

    def log_in(self, name: str, password: str = PASSWORD) -> int:
        """Log in and return the status."""
        return self.ask("POST", "/login", {"name": name, "password": password})[0]

    def csrf(self) -> str:
        """Return the token of the session."""
        return self.ask("GET", "/now")[1].partition('name="csrf" value="')[2].partition('"')[0]


def photo_of(console) -> str:
    return str(next(console.store.scan(["photo_id"]))["photo_id"])


@pytest.mark.parametrize(
    "path", [page.path for page in PAGES] + ["/live", "/pictures/{photo}/320", "/review/more"]
)
def test_a_stranger_gets_nothing(console, path):
    """Without a session every page leads to the login, and nothing else answers."""
    client = Client(console)
    status, body = client.ask("GET", path.format(photo=photo_of(console)))
    assert (status, client.headers.get("location")) == (HTTPStatus.SEE_OTHER, "/login")
    assert body == ""
    assert client.ask("GET", path.format(photo=photo_of(console)), Accept="image/*")[0] == 401


def test_a_viewer_gives_no_label(console):
    """A viewer sees pages without the review; its endpoints refuse."""
    client = Client(console)
    assert client.log_in("a viewer") == HTTPStatus.SEE_OTHER
    assert 'href="/review"' not in client.ask("GET", "/now")[1]
    token = client.csrf()
    assert client.ask("GET", "/review")[0] == HTTPStatus.FORBIDDEN
    for path in ("/review/label", "/review/more", "/review/skip", "/review/undo"):
        fields = {"photo": photo_of(console), "label": "cat", "csrf": token}
        assert client.ask("POST", path, fields)[0] == HTTPStatus.FORBIDDEN
    assert console.labels() == {}


def test_a_reviewer_labels_without_script(console):
    """The form works in a browser without script, and its label is the reviewer's."""
    client, photo = Client(console), photo_of(console)
    client.log_in("a reviewer")
    fields = {"photo": photo, "label": "cat", "csrf": client.csrf()}
    assert client.ask("POST", "/review/label", fields)[0] == HTTPStatus.SEE_OTHER
    console.wait_until(lambda: console.labels().get(photo) == ("cat", "a reviewer"))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-CSRF-Token": "wrong"},
        {"X-CSRF-Token": "{token}", "Origin": "http://evil.example"},
        {"X-CSRF-Token": "{token}", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_change_from_another_site_is_refused(console, headers):
    """A POST needs the session's token and this console as its origin."""
    client = Client(console)
    client.log_in("a operator")
    token = client.csrf()
    sent = {name: value.format(token=token) for name, value in headers.items()}
    assert client.ask("POST", "/logout", {}, **sent)[0] == HTTPStatus.FORBIDDEN
    assert client.ask("GET", "/now")[0] == HTTPStatus.OK


@pytest.mark.parametrize(
    "change",
    [
        lambda accounts: accounts.remove("ada"),
        lambda accounts: accounts.put("ada", "viewer", None),
        lambda accounts: accounts.put("ada", "operator", "another password"),
    ],
    ids=["removed", "another role", "another password"],
)
def test_a_session_ends_with_its_account(console, change):
    """After the account was removed, or has another role or password, the next request leads to the login."""
    accounts = Accounts(console.folder / "accounts.json")
    accounts.put("ada", "operator", PASSWORD)
    client, other = Client(console), Client(console)
    client.log_in("ada")
    other.log_in("a viewer")
    token = client.csrf()
    change(accounts)
    fields = {"photo": photo_of(console), "label": "dog", "csrf": token}
    assert client.ask("POST", "/review/label", fields)[0] == HTTPStatus.UNAUTHORIZED
    assert client.ask("GET", "/now")[0] == HTTPStatus.SEE_OTHER
    assert client.headers["location"] == "/login"
    assert client.ask("GET", "/live", Accept="text/event-stream")[0] == HTTPStatus.UNAUTHORIZED
    assert other.ask("GET", "/now")[0] == HTTPStatus.OK


def test_nobody_gets_in_while_the_accounts_cannot_be_read(console):
    """With a damaged file a session is neither believed nor ended."""
    client, path = Client(console), console.folder / "accounts.json"
    client.log_in("a viewer")
    before = path.read_bytes()
    write_atomic(path, b"{", mode=0o600)
    try:
        assert client.ask("GET", "/now")[0] == HTTPStatus.SERVICE_UNAVAILABLE
        stranger = Client(console)
        fields = {"name": "a viewer", "password": PASSWORD}
        status, body = stranger.ask("POST", "/login", fields)
        assert (status, str(console.folder) in body, stranger.cookie) == (HTTPStatus.CONFLICT, False, "")
    finally:
        write_atomic(path, before, mode=0o600)
    assert client.ask("GET", "/now")[0] == HTTPStatus.OK


def test_a_session_of_another_way_to_log_in_ends(tmp_path, mosquitto):
    """With accounts, the console believes no one-time address that was opened in an earlier run, nor back."""
    accounts = {"accounts": str(tmp_path / "accounts.json")}
    Accounts(tmp_path / "accounts.json").put("ada", "operator", PASSWORD)
    with running_console(tmp_path, mosquitto, samples=1) as console:
        by_address = Client(console)
        assert by_address.ask("GET", console.address.removeprefix(console.url))[0] == HTTPStatus.SEE_OTHER
        assert by_address.ask("GET", "/now")[0] == HTTPStatus.OK
    with restarted(by_address, tmp_path, mosquitto, **accounts) as console:
        assert by_address.ask("GET", "/now")[0] == HTTPStatus.SEE_OTHER
        by_account = Client(console)
        by_account.log_in("ada")
    with restarted(by_account, tmp_path, mosquitto, **accounts):
        assert by_account.ask("GET", "/now")[0] == HTTPStatus.OK
    with restarted(by_account, tmp_path, mosquitto):
        assert by_account.ask("GET", "/now")[0] == HTTPStatus.SEE_OTHER


@contextmanager
def restarted(client, folder, mosquitto, **fields):
    """Run a console on the state of an earlier one, with the browser that was logged in there."""
    with running_console(folder, mosquitto, samples=1, **fields) as console:
        client.go_to(console)
        yield console


def test_guessing_passwords_is_slowed_down(console):
    """After many wrong passwords a name has to wait, also with the right one."""
    client = Client(console)
    assert client.log_in("a viewer", "wrong password") == HTTPStatus.FORBIDDEN
    for _ in range(16):
        console.shown.login.backoff.failed("name a viewer")
    assert client.log_in("a viewer") == HTTPStatus.TOO_MANY_REQUESTS
    console.shown.login.backoff.succeeded("name a viewer", "client 127.0.0.1")
    assert client.log_in("a viewer") == HTTPStatus.SEE_OTHER


def test_a_stranger_pushes_nothing_out_of_the_audit_trail(console):
    """A throttled login is not recorded: it would push others' entries out of the bounded trail."""
    client, trail, backoff = Client(console), console.shown.audit, console.shown.login.backoff
    backoff.succeeded("client 127.0.0.1")

    def recorded() -> int:
        return len(console.call(trail.find(limit=1000, action="login.failed")))

    before = recorded()
    try:
        for name in 2 * FREE_ATTEMPTS * ("", "x" * 400, "guest"):
            client.ask("POST", "/login", {"name": name, "password": "x"})
        assert client.ask("POST", "/login", {"name": "", "password": ""})[0] == HTTPStatus.TOO_MANY_REQUESTS
        assert recorded() - before == FREE_ATTEMPTS
    finally:
        backoff.succeeded("client 127.0.0.1")


def test_connections_that_say_nothing_take_no_place(console):
    """More than there is room for are open; a person is answered anyway."""
    place = console.url.removeprefix("http://").split(":")
    with ExitStack() as opened:
        for _ in range(300):
            opened.enter_context(socket.create_connection((place[0], int(place[1]))))
        assert Client(console).ask("GET", "/login")[0] == HTTPStatus.OK


def test_a_request_that_does_not_go_on_has_an_end(console, monkeypatch):
    """Its body is not waited for longer than a deadline."""
    monkeypatch.setattr(guard, "MAX_BODY_S", 0.05)
    place = console.url.removeprefix("http://").split(":")
    with socket.create_connection((place[0], int(place[1])), timeout=DEADLINE_S) as slow:
        head = f"POST /login HTTP/1.1\r\nHost: {':'.join(place)}\r\nContent-Length: 9\r\n\r\n"
        slow.sendall(f"{head}name".encode())
        assert b" 408 " in slow.recv(4096)


def test_pages_forbid_what_they_do_not_need(console):
    """No script or style but our files, no frame around us, a cookie out of reach of scripts."""
    client = Client(console)
    client.log_in("a viewer")
    cookie = client.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    client.ask("GET", "/now")
    policy = client.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert client.headers["cache-control"] == "no-store"


def test_another_host_name_is_refused(console):
    """A name of another site that leads to this machine gets nothing."""
    assert Client(console).ask("GET", "/login", Host="evil.example")[0] == HTTPStatus.MISDIRECTED_REQUEST


def test_a_large_body_is_refused(console):
    """A body beyond the bound is not kept in memory."""
    client = Client(console)
    assert client.ask("POST", "/login", {"name": "x" * 300_000})[0] == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


def test_who_did_what_is_recorded(console):
    """Logins, failed ones too, and labels are in the audit trail with the person's name."""
    client = Client(console)
    client.log_in("a reviewer", "wrong password")
    client.log_in("a reviewer")
    fields = {"photo": photo_of(console), "label": "dog", "csrf": client.csrf()}
    client.ask("POST", "/review/label", fields)
    newest = console.call(console.shown.audit.newest(3))
    assert [one.action for one in newest] == ["label.given", "login.succeeded", "login.failed"]
    assert {(one.person, one.client) for one in newest} == {("a reviewer", "127.0.0.1")}
    assert json.loads(newest[0].facts) == {"label": "dog", "photos": [photo_of(console)]}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "without accounts"),
        ({"accounts": "accounts.json"}, "without TLS"),
    ],
)
def test_a_network_needs_protection(fields, problem):
    """Beyond loopback the console needs accounts and TLS, or a proxy."""
    with pytest.raises(PermanentError, match=problem):
        check_exposure(ConsoleConfig(listen="0.0.0.0:8765", **fields))
    check_exposure(ConsoleConfig(listen="0.0.0.0:8765", proxy=Proxy(addresses=["10.0.0.2"])))


def test_a_proxy_is_believed_by_its_address(tmp_path, mosquitto):
    """A trusted proxy names the person; the same headers from elsewhere count for nothing."""
    proxy = Proxy(addresses=["127.0.0.1"])
    with running_console(tmp_path, mosquitto, samples=1, proxy=proxy) as console:
        named = {"X-Forwarded-User": "Ada", "X-Forwarded-Role": "viewer"}
        client = Client(console, **named)
        status, body = client.ask("GET", "/now")
        assert (status, "<bdi>Ada</bdi>" in body) == (HTTPStatus.OK, True)
        assert client.ask("GET", "/review")[0] == HTTPStatus.FORBIDDEN
        nobody = Client(console)
        nobody.cookie = client.cookie
        assert nobody.ask("GET", "/now")[0] == HTTPStatus.SEE_OTHER
        assert console.shown.login.by_proxy("10.1.1.1", {"x-forwarded-user": "Ada"}) is None
