"""The notifier on a real broker, with real HTTP receivers, which Apprise reaches by `json://`."""

import asyncio
import json
import threading
from contextlib import asynccontextmanager, contextmanager
from email import message_from_string
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from msgspec import structs

from bus.config import ConfigError
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.presence import Presence
from bus.notifications import receivers, service
from bus.notifications.config import NotifyConfig
from bus.notifications.digest import Summary
from bus.notifications.receivers import ATTEMPTS, Receiver, read_receivers
from schemas.events import EventName
from schemas.messages import Event
from schemas.topics import CLOUD, EVENT
from tests.conftest import eventually, running
from tests.nodes import Observer


class Inbox:
    """What an HTTP server received; it refuses the first requests."""

    def __init__(self, port: int, refuse: int) -> None:
        self.port, self.refuse = port, refuse
        self.requests = 0
        self.messages: list[dict[str, str]] = []

    def url(self) -> str:
        return f"json://user:hush@127.0.0.1:{self.port}/"


@contextmanager
def inbox(refuse: int = 0):
    """Run an HTTP server for the length of a block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            content = self.rfile.read(int(self.headers["Content-Length"]))
            found.requests += 1
            is_refused = found.requests <= found.refuse
            if not is_refused:
                found.messages.append(json.loads(content))
            self.send_response(503 if is_refused else 200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Inbox(server.server_port, refuse)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@asynccontextmanager
async def notifying(config: NotifyConfig):
    found = await asyncio.to_thread(read_receivers, Path(config.urls_file))
    task = asyncio.create_task(service.run(config, found))
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        ended = (await asyncio.gather(task, return_exceptions=True))[0]
        if not isinstance(ended, asyncio.CancelledError | type(None)):
            raise ended


@pytest.fixture
def config(address, tmp_path) -> NotifyConfig:
    return NotifyConfig(broker=address, urls_file=str(tmp_path / "urls"), gather_s=0.5, every_s=0)


def event(name: EventName, node: str = CLOUD, who: str = "trainer", reason: str | None = None) -> Event:
    return Event(node=node, name=who, event=name, at_ms=1, reason=reason)


async def publish(seen: Observer, *events: Event) -> None:
    for one in events:
        await seen.bus.publish(EVENT, one, node=one.node, name=one.name)


async def test_events_reach_people_summed_up(config, tmp_path):
    """One message for events that come together, of the configured kinds alone, with place and reason."""
    with inbox() as received:
        (tmp_path / "urls").write_text(f"# the family\n\n{received.url()}\n")
        async with Observer(config.broker, node=CLOUD).watching() as seen, notifying(config):
            await seen.status("online", "notify")
            await publish(
                seen,
                event(EventName.ROUND_STARTED),
                event(EventName.ROUND_FINISHED, reason="version 3: promote"),
                event(EventName.MODEL_FAILED, "edge-1", "edge", "no signature"),
            )
            await eventually(lambda: received.messages)
            assert received.messages[0]["title"] == "Gleaner: 2 messages: round.finished, model.failed"
            assert received.messages[0]["message"] == (
                "round.finished: trainer: version 3: promote\nmodel.failed: edge-1: no signature"
            )


async def test_a_failing_receiver_delays_no_other_and_is_reported(config, tmp_path, monkeypatch):
    """One receiver is away forever, another refuses twice: its message is repeated, and arrives once."""
    monkeypatch.setattr(receivers, "_FIRST_RETRY_S", 0.01)
    with inbox(refuse=2) as hesitant, inbox() as ready, inbox(refuse=10_000) as away:
        urls = [away.url(), hesitant.url(), ready.url()]
        (tmp_path / "urls").write_text("\n".join(urls))
        async with Observer(config.broker, node=CLOUD).watching() as seen, notifying(config):
            await seen.status("online", "notify")
            await publish(seen, event(EventName.ROLLOUT_RETURNED, who="rollout", reason="worse"))
            await eventually(lambda: ready.messages and hesitant.messages)
            degraded = await seen.status("degraded", "notify")
            assert "receiver 1 (json) does not take messages" in degraded.reason
            assert "hush" not in degraded.reason
        assert (len(hesitant.messages), hesitant.requests) == (1, 3)


async def test_every_retry_has_an_end(address, tmp_path):
    """After all attempts a message is given up and counted, and the next one is sent."""
    with inbox(refuse=ATTEMPTS) as received:
        (tmp_path / "urls").write_text(received.url())
        ((name, send_by),) = read_receivers(tmp_path / "urls")
        bus = Bus(address, transient_client_id("notify"), presence=Presence(CLOUD, "notify"))
        receiver = Receiver(name, send_by, bus, first_retry_s=0.001)
        async with running(bus):
            task = asyncio.create_task(receiver.run())
            for number in range(2):
                receiver.put(Summary(f"number {number}", "text"))
            await eventually(lambda: received.messages)
            task.cancel()
        assert [message["title"] for message in received.messages] == ["number 1"]
        assert bus.counters["notification.failed"] == 1


async def test_g3_what_waits_for_a_receiver_is_bounded(address, tmp_path):
    """G3: the newest message replaces the oldest, which is counted."""
    (tmp_path / "urls").write_text("json://127.0.0.1:9/")
    ((name, send_by),) = read_receivers(tmp_path / "urls")
    bus = Bus(address, transient_client_id("notify"), presence=Presence(CLOUD, "notify"))
    receiver = Receiver(name, send_by, bus)
    for number in range(10):
        receiver.put(Summary(str(number), "text"))
    assert bus.counters["notification.dropped"] == 6


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", "there are no receivers in"),
        ("# nobody\n", "there are no receivers in"),
        ("json://127.0.0.1\nnosuch://user:hush@host", "line 2 of .* is not a URL that Apprise knows"),
    ],
)
def test_a_wrong_file_is_a_sentence_without_its_secrets(tmp_path, content, error):
    """The error names the line and not what is in it."""
    (tmp_path / "urls").write_text(content)
    with pytest.raises(ConfigError, match=error) as raised:
        read_receivers(tmp_path / "urls")
    assert "hush" not in str(raised.value)


def test_a_missing_file_is_a_sentence(tmp_path):
    """So is one that is not text."""
    with pytest.raises(ConfigError, match="cannot read the receivers in"):
        read_receivers(tmp_path / "none")
    (tmp_path / "urls").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_receivers(tmp_path / "urls")


def test_messages_to_people_are_apart_by_default():
    """Five minutes at least, so that a flapping node does not wake anybody every minute."""
    assert structs.replace(NotifyConfig(), name="notify-2").every_s == 300


@asynccontextmanager
async def mail_server():
    """Take mail on loopback; yields the port, and what came."""
    mails: list[str] = []

    async def take(reader, writer):
        writer.write(b"220 hello\r\n")
        while line := await reader.readline():
            if line.upper().startswith(b"DATA"):
                writer.write(b"354 go on\r\n")
                mails.append((await reader.readuntil(b"\r\n.\r\n")).decode())
            writer.write(b"250 ok\r\n")
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], mails


@pytest.mark.parametrize(("wanted", "kind"), [("", "text/plain"), ("&format=html", "text/html")])
async def test_a_reason_is_text_in_a_mail_too(config, tmp_path, wanted, kind):
    """A device chooses its reasons: no link, picture or form in one is shown as such, also in HTML."""
    async with mail_server() as (port, mails), Observer(config.broker, node=CLOUD).watching() as seen:
        address = f"mailto://127.0.0.1:{port}/?to=a@example.org&from=b@example.org&mode=insecure{wanted}"
        (tmp_path / "urls").write_text(f"{address}\n")
        async with notifying(config):
            await seen.status("online", "notify")
            await publish(seen, event(EventName.MODEL_FAILED, "edge-1", "edge", "<img src=http://x/>"))
            await eventually(lambda: bool(mails))
            parts = [one for one in message_from_string(mails[0]).walk() if not one.is_multipart()]
            assert kind in {one.get_content_type() for one in parts}
            for one in parts:
                shown = "&lt;img" if one.get_content_type() == "text/html" else "<img"
                assert shown in one.get_payload(decode=True).decode()
