"""Links of the documents to other sites; those inside the repository are tested with the site."""

import http.server
import sys
import threading
from urllib.parse import urlsplit

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "deploy"))
from check_links import external_links, unreachable
from docs_site import pages


def test_a_link_to_another_site_is_a_whole_address():
    """By https, with a host, without a user, and not ended by the punctuation of its sentence."""
    links = external_links(pages())
    assert links
    wrong = [
        (url, places)
        for url, places in links.items()
        for parts in [urlsplit(url)]
        if parts.scheme != "https" or "." not in (parts.hostname or "") or parts.username or url[-1] in ".,;:"
    ]
    assert wrong == []


def test_each_address_is_listed_once_with_its_pages(tmp_path, monkeypatch):
    """Two pages that link to one address are visited once."""
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text("[x](https://example.org/x) [x](https://example.org/x) `https://y`")
    monkeypatch.setattr("check_links.ROOT", tmp_path)
    found = external_links([tmp_path / "a.md", tmp_path / "b.md"])
    assert found == {"https://example.org/x": ["a.md", "b.md"]}


class _Site(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/there" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def site():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_address_that_cannot_be_opened_says_why(site):
    """A page that is not there, a server that is not there, and one that is."""
    assert unreachable(f"{site}/there") is None
    assert "404" in (unreachable(f"{site}/gone") or "")
    assert unreachable("http://127.0.0.1:1/") is not None
