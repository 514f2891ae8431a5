"""Rules of console/access/login.py and console/pages/entrance.py: one-time addresses, and HTTPS."""

import http.client
import socket
import ssl
import stat
import subprocess
from http import HTTPStatus

from console import service
from console.config import ServerTls
from tests.conftest import DEADLINE_S
from tests.console.access.test_access import Client, with_accounts


def test_a_one_time_address_works_once(console):
    """Another browser needs the next one, which is in a file for its owner alone."""
    path, file = console.address.removeprefix(console.url), console.folder / "console" / "address"
    before = file.read_text()
    first, second = Client(console), Client(console)
    first.ask("GET", path)
    assert first.ask("GET", "/now")[0] == HTTPStatus.OK
    (entered,) = console.call(console.shown.audit.find(limit=9, action="login.succeeded"))
    assert (entered.client, "operator" in entered.facts) == ("127.0.0.1", True)
    second.ask("GET", path)
    assert second.headers["location"] == "/login"
    assert second.ask("GET", "/now")[0] == HTTPStatus.SEE_OTHER
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    following = file.read_text().strip()
    assert following != before.strip()
    second.ask("GET", following.removeprefix(console.url))
    assert second.ask("GET", "/now")[0] == HTTPStatus.OK


class SecureClient(Client):
    """A browser that believes the console's certificate."""

    def __init__(self, console, certificate) -> None:
        super().__init__(console)
        self._trust = ssl.create_default_context(cafile=str(certificate))

    def _connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self.host, timeout=60, context=self._trust)


def certified(tmp_path) -> ServerTls:
    """Make a certificate."""
    certificate, key = tmp_path / "https.pem", tmp_path / "https.key"
    # As docs/console.md says.
    words = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=console"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", "req", *words.split(), *names], check=True, capture_output=True)
    return ServerTls(certificate=str(certificate), key=str(key))


def test_https_keeps_the_session_from_plain_http(tmp_path, mosquitto):
    """With a certificate the cookie is `Secure`, and HSTS makes browsers use HTTPS only."""
    tls = certified(tmp_path)
    with with_accounts(tmp_path, mosquitto, tls=tls) as console:
        assert console.url.startswith("https://")
        client = SecureClient(console, tls.certificate)
        assert client.log_in("a viewer") == HTTPStatus.SEE_OTHER
        assert "secure" in client.headers["set-cookie"].lower().split("; ")
        assert client.headers["strict-transport-security"] == "max-age=31536000"
        assert client.ask("GET", "/now")[0] == HTTPStatus.OK


def test_who_does_not_begin_tls_is_disconnected(tmp_path, mosquitto, monkeypatch):
    """Connections without a handshake count for no other bound: in a minute they take all descriptors."""
    monkeypatch.setattr(service, "HANDSHAKE_S", 0.2)
    with with_accounts(tmp_path, mosquitto, tls=certified(tmp_path)) as console:
        host, port = console.url.removeprefix("https://").split(":")
        with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as silent:
            assert silent.recv(1) == b""
