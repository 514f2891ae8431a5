"""Signatures of releases, with a real edge and broker and no model server."""

import asyncio
import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus.config import ConfigError
from bus.security.signing import new_signing_key, read_signing_key, release_key, sign
from edge import service
from edge.models.release_records import ReleaseRecords
from edge.models.releases.signature_check import SignatureVerifier
from schemas.messages import Release
from schemas.topics import RELEASE
from tests.bus.security.test_signing import OTHER
from tests.conftest import DEADLINE_S, eventually
from tests.nodes import Observer, edge_config, edge_running
from tests.sites import provision


@pytest.fixture
def keys(tmp_path):
    """The signing key, and the path of the release key."""
    private = tmp_path / "signing.key"
    private.write_bytes(new_signing_key())
    signing = read_signing_key(private)
    (tmp_path / "release.pem").write_bytes(release_key(signing))
    return signing, str(tmp_path / "release.pem")


@contextmanager
def bundles() -> Iterator[tuple[str, list[str]]]:
    """Run an HTTP server without files; yields its URL and the requested paths."""
    requested: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET  # noqa: N815  # http.server looks for these names

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requested
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def release(url: str, **changes: object) -> Release:
    facts: dict[str, object] = {
        "node": "edge-1",
        "model": "pets",
        "version": 7,
        "url": url,
        "sha256": "0" * 64,
        "size_bytes": 1000,
        "classes": ["cat", "dog"],
        "released_at_ms": 1000,
    }
    return Release(**(facts | changes))  # type: ignore[arg-type]  # a test's own words


async def test_g6_a_release_without_a_valid_signature_is_not_fetched(tmp_path, address, keys):
    """Unsigned, signed by another key, garbled or altered in any field: an event has the reason."""
    signing, key = keys
    (tmp_path / "stranger.key").write_bytes(new_signing_key())
    stranger = read_signing_key(tmp_path / "stranger.key")
    with bundles() as (url, requested):
        good = sign(release(f"{url}/good"), signing)
        bad = [
            release(f"{url}/unsigned"),
            sign(release(f"{url}/stranger"), stranger),
            release(f"{url}/garbage", signature="rubbish"),
            # Signed for another node and replayed to this one:
            msgspec.structs.replace(sign(release(f"{url}/other", node="edge-2"), signing), node="edge-1"),
            *(
                msgspec.structs.replace(good, **{field: value})
                for field, value in (OTHER | {"url": f"{url}/altered"}).items()
                if field != "node"
            ),
        ]
        config = edge_config(
            address, "127.0.0.1:1", tmp_path, models_dir=str(tmp_path / "models"), release_key=key
        )
        async with Observer(address).watching() as seen, edge_running(config):
            await eventually(lambda: seen.newest().state != "offline")
            for number, refused in enumerate(bad, start=1):
                await seen.bus.publish(RELEASE, refused, node="edge-1")
                await eventually(lambda number=number: len(seen.events) == number)
            await seen.bus.publish(RELEASE, good, node="edge-1")
            await eventually(lambda: bool(requested))
        # The stub of the bundle server has no bundle for the good one either, which is another event.
        assert {event.event for event in seen.events[: len(bad)]} == {"model.refused"}
        assert all(event.reason for event in seen.events)
        assert set(requested) == {"/good"}


async def test_g6_the_refusal_of_a_retained_release_is_published(tmp_path, address, keys):
    """It is delivered before the edge may publish, and the event is sent anyway."""
    config = edge_config(address, "127.0.0.1:1", tmp_path, release_key=keys[1])
    async with Observer(address).watching() as seen:
        await seen.bus.publish(RELEASE, release("file:///none"), node="edge-1")
        async with edge_running(config):
            await eventually(lambda: [event.event for event in seen.events] == ["model.refused"])


def test_g6_an_old_release_cannot_be_replayed(tmp_path, keys):
    """After a release no older one is accepted, also after a restart; to return to one it is signed again."""
    signing, key = keys
    first = sign(release("file:///1", version=1, released_at_ms=1), signing)
    second = sign(release("file:///2", version=2, released_at_ms=2), signing)
    back = sign(release("file:///1", version=1, released_at_ms=3), signing)
    records = tmp_path / "releases"
    verifier = SignatureVerifier(key)
    verifier.load([])
    assert [verifier.rejection(one) for one in (first, second, second)] == [None, None, None]
    assert "to return to an old version, sign it again" in (verifier.rejection(first) or "")

    records.mkdir()
    (records / "pets-2.json").write_bytes(msgspec.json.encode(second))
    # Recorded by a run without a key: it does not count.
    forged = release("file:///9", version=9, released_at_ms=9)
    (records / "pets-9.json").write_bytes(msgspec.json.encode(forged))
    (records / "pets-3.json").write_bytes(b"half a rec")
    again = SignatureVerifier(key)
    again.load(ReleaseRecords(records, "pets", None).all())
    assert "to return to an old version, sign it again" in (again.rejection(first) or "")
    assert again.rejection(second) is None
    assert again.rejection(back) is None
    assert again.rejection(second) is not None


@pytest.fixture
def rotated(tmp_path) -> tuple[Path, Ed25519PrivateKey, Ed25519PrivateKey]:
    """Release keys of a site whose signing key was rotated; the old and the new signing key."""
    provision(tmp_path / "site", "--cloud", "cloud.lan", "--edge", "edge-1")
    old = read_signing_key(tmp_path / "site/authority/signing.key")
    provision(tmp_path / "site", "--rotate", "signing", "--overlap", "30")
    new = read_signing_key(tmp_path / "site/authority/signing.key")
    return tmp_path / "site/edges/edge-1/release.pem", old, new


def test_g6_both_signing_keys_are_accepted_during_a_rotation(rotated):
    """During the overlap releases of the old and of the new key are accepted, of any other key none."""
    path, old, new = rotated
    verifier = SignatureVerifier(str(path))
    verifier.load([])
    (path.parent / "other.key").write_bytes(new_signing_key())
    stranger = read_signing_key(path.parent / "other.key")
    signed = [sign(release("file:///1", released_at_ms=ms), key) for ms, key in enumerate((old, new, old), 1)]
    assert [verifier.rejection(one) for one in signed] == [None, None, None]
    assert verifier.rejection(sign(release("file:///1", released_at_ms=9), stranger)) is not None


def test_g6_the_old_signing_key_ends_at_its_time(rotated, tmp_path):
    """After the overlap only the new key is accepted; what the old one released still bounds replays."""
    path, old, new = rotated
    text = re.sub("(?m)^until: .*$", "until: 2020-01-01T00:00:00+00:00", path.read_text())
    path.write_text(text)
    assert "until: 2020" in text
    verifier = SignatureVerifier(str(path))
    verifier.load([sign(release("file:///1", released_at_ms=5), old)])

    def rejection(at_ms: int, key: Ed25519PrivateKey) -> str:
        return verifier.rejection(sign(release("file:///1", released_at_ms=at_ms), key)) or ""

    assert "ended at 2020-01-01" in rejection(6, old)
    assert "before the newest" in rejection(4, new)
    assert not rejection(7, new)


@pytest.mark.parametrize("damage", ["-----BEGIN PUBLIC KEY-----\n", "until: tomorrow\n{}"])
def test_damaged_release_keys_are_an_error(rotated, damage):
    """A half or undated second key is not ignored: the node does not start."""
    path, _, _ = rotated
    path.write_text(path.read_text() + damage.format(path.read_text().split("until")[0]))
    with pytest.raises(ConfigError, match=r"release\.pem.*Ed25519"):
        SignatureVerifier(str(path)).load([])


def test_without_a_key_all_releases_are_accepted_with_a_warning(tmp_path):
    """The warning is logged once."""
    verifier = SignatureVerifier(None)
    with structlog.testing.capture_logs() as logs:
        verifier.load([])
        assert verifier.rejection(release("file:///1")) is None
    assert [line["event"] for line in logs] == ["release.unverified"]


async def test_an_unreadable_release_key_stops_the_edge(tmp_path, address):
    """An edge with a configured key never accepts unsigned releases."""
    config = edge_config(address, "127.0.0.1:1", tmp_path, release_key=str(tmp_path / "none.pem"))
    with pytest.raises(ConfigError, match=r"none\.pem"):
        async with asyncio.timeout(DEADLINE_S):
            await service.run(config)


def test_g6_no_flipped_bit_of_what_was_accepted_stops_an_edge(tmp_path, keys):
    """G6: at any place in the file, also as invalid UTF-8 in a text; installed releases still count."""
    signing, key = keys
    installed = sign(release("file:///2", version=2, released_at_ms=2000), signing)
    older = sign(release("file:///1", version=1, released_at_ms=1000), signing)
    state = tmp_path / "pets.accepted"
    verifier = SignatureVerifier(key, state)
    verifier.load([])
    assert verifier.rejection(installed) is None
    content = state.read_bytes()
    for at, byte in enumerate(content):
        state.write_bytes(content[:at] + bytes([byte ^ 0x80]) + content[at + 1 :])
        verifier = SignatureVerifier(key, state)
        verifier.load([installed])
        assert verifier.rejection(older) is not None
