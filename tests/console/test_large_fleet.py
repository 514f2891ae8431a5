"""Rules of the pages with many nodes and devices: what they show is bounded, the rest is searched for."""

import base64
import gzip
import json
import re
from http import HTTPStatus

import pytest

from bus.mqtt.presence import now_ms
from console.pages import PAGES
from console.web.languages import translations
from console.web.rendering import assets
from schemas.messages import Event, Policy, Result, Status
from schemas.policy_rules import HarvestRules
from tests.console.access.test_access import Client
from tests.nodes import photo_id

NODES, DEVICES = 300, 1000
MAX_PAGE_BYTES = 100_000
MAX_HTML_BYTES = 100_000
"""Of a page before its compression, which a phone has to parse."""


@pytest.fixture(scope="module")
def client(console):
    """A browser at a console that knows a large fleet with many problems."""
    console.call(fill(console.shown.live))
    opened = Client(console)
    opened.ask("GET", console.address.removeprefix(console.url))
    return opened


async def fill(live) -> None:
    """Fill the live state as messages of the broker do; half of the edges are offline."""
    for at in range(NODES):
        state = "offline" if at % 2 else "online"
        live.add_status(
            (f"edge-{at}", "edge"), status(f"edge-{at}", "edge", state=state, reason="the connection broke")
        )
        live.add_policy(
            f"edge-{at}", Policy(node=f"edge-{at}", harvest=HarvestRules(), issued_at_ms=now_ms())
        )
    for at in range(DEVICES):
        node, device = f"edge-{at % NODES}", f"garden-camera-{at}"
        live.add_status((node, device), status(node, device))
        for number in range(12):
            live.add_result(answer(node, device, 12 * at + number))
        facts = {"version": at, "photos": 120}
        live.add_event(
            Event(
                node=node, name="edge", event="model.refused", reason="x" * 200, at_ms=now_ms(), facts=facts
            )
        )


def status(node: str, name: str, **fields: object) -> Status:
    counters = {
        "outbox.accepted": 412,
        "outbox.answered": 409,
        "photo.shed": 11,
        "photo.rejected_too-large": 3,
    }
    made = {
        "state": "online",
        "at_ms": now_ms(),
        "since_ms": 1,
        "software": "1",
        "run_id": "1",
        "counters": counters,
    }
    return Status(**{"node": node, "name": name} | made | fields)


def answer(node: str, device: str, number: int) -> Result:
    return Result(
        photo_id=photo_id(number),
        node=node,
        device=device,
        status="ok",
        label=f"class-{number % 200}",
        confidence=0.9,
        harvest="auto",
        model_version=3,
        answered_at_ms=now_ms(),
    )


@pytest.mark.parametrize("path", [page.path for page in PAGES] + ["/policy/edge-7"])
def test_a_page_stays_small_with_a_large_fleet(client, path):
    """With 300 nodes and 1000 devices: all compressed below 100 kB, the page bounded."""
    status, text = client.ask("GET", path)
    assert status == HTTPStatus.OK
    html, files = text.encode(), re.findall(r'(?:href|src)="/static/([^"?]+\.(?:css|js))\?', text)
    assert len(files) >= 3
    compressed = [gzip.compress(html, 6), *(sent(client, name) for name in files)]
    assert sum(map(len, compressed)) < MAX_PAGE_BYTES
    assert len(html) < MAX_HTML_BYTES


def sent(client, name: str) -> bytes:
    """Return a file as it is sent to a browser."""
    return client.ask_bytes(assets().url(name), **{"Accept-Encoding": "gzip"})


def test_pages_are_compressed(client):
    """For a browser that takes gzip, and no stream of events, which a compressor would hold back."""
    plain = client.ask("GET", "/fleet")[1]
    body = client.ask_bytes("/fleet", **{"Accept-Encoding": "gzip"})
    assert client.headers["content-encoding"] == "gzip"
    assert "accept-encoding" in client.headers["vary"].lower()
    assert len(body) < len(plain.encode()) / 4
    assert gzip.decompress(body).decode().startswith("<!doctype html>")


def test_what_is_not_shown_is_found(client):
    """Every node and device by a part of its name, and what is in a state; the rest is counted."""
    shown = client.ask("GET", "/fleet")[1]
    assert "garden-camera-977" not in shown
    assert re.search(r"\d+ further nodes: search to see them", shown)
    found = client.ask("GET", "/fleet?find=Camera-977")[1]
    assert ("garden-camera-977" in found, "garden-camera-976" in found) == (True, False)
    assert "state-online" not in client.ask("GET", "/fleet?state=offline")[1].partition("<main")[2]
    assert 'href="/policy/edge-299"' in client.ask("GET", "/policy?node=299")[1]
    assert "garden-camera-0</bdi>" in client.ask("GET", "/now?device=garden-camera-0")[1]
    assert "garden-camera-977</bdi>" in client.ask("GET", "/now?device=camera-977")[1]
    assert "edge-298" in client.ask("GET", "/events?node=edge-298")[1].partition("<ol")[2]


def test_what_is_wrong_is_said_in_chinese(client):
    """Findings with their advice, errors of the console, and the manifest; what components report stays."""
    chinese, asked = translations("zh_Hant").gettext, {"Accept-Language": "zh-TW"}
    page = client.ask("GET", "/now", **asked)[1]
    assert "邊緣節點 edge-1" in page
    assert f"{chinese('offline')}\N{FULLWIDTH COMMA}gleaner 1" in page
    assert "請以 &#39;gleaner edge --node edge-1&#39; 啟動" in page
    assert "reported" not in page.partition("<main")[2]
    refused = client.ask("POST", "/review/label", {"csrf": client.csrf(), "label": "cat"}, **asked)[1]
    assert chinese("no photo was chosen") in refused
    assert (
        client.ask("POST", "/review/label", {"csrf": "old"}, **asked)[1]
        == chinese("this page is too old: load it again") + "\n"
    )
    manifest = json.loads(client.ask("GET", "/manifest.webmanifest", **asked)[1])
    assert (manifest["lang"], manifest["shortcuts"][0]["name"]) == ("zh-Hant", "標註")


def test_the_token_looks_different_in_each_answer(client):
    """A compressed page that repeats a stranger's guess must not reveal whether it was right (BREACH)."""
    tokens = {client.csrf() for _ in range(3)}
    assert len(tokens) == 3
    for token in tokens:
        assert client.ask("POST", "/review/skip", {"csrf": token})[0] == HTTPStatus.SEE_OTHER
    other = bytearray(base64.urlsafe_b64decode(token))
    other[-1] ^= 1
    for wrong in ("", "no token", "é", f"AAAA{token}", base64.urlsafe_b64encode(other).decode()):
        assert client.ask("POST", "/review/skip", {"csrf": wrong})[0] == HTTPStatus.FORBIDDEN
