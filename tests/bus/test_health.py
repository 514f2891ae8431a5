import asyncio
import contextlib
import socket
import urllib.error
import urllib.request

import pytest

from bus.broker.process import free_port, is_listening
from bus.health import HealthServer, HealthServerError, response
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.presence import Presence
from tests.conftest import DEADLINE_S, eventually


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=DEADLINE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def test_ready_means_connected_and_not_degraded(broker, address):
    """/readyz is 200 if the broker is connected and nothing is degraded; otherwise 503 with the reason."""
    bus = Bus(address, transient_client_id("probed"), presence=Presence("n", "e"))
    health = HealthServer(f"127.0.0.1:{(port := free_port())}", bus.unready_reason)
    tasks = [asyncio.create_task(bus.run()), asyncio.create_task(health.run())]
    try:
        async with asyncio.timeout(DEADLINE_S):
            await bus.connected()
            assert await asyncio.to_thread(get, port, "/readyz") == (200, "ready\n")
            await bus.report_degraded("predict", "no model")
            assert await asyncio.to_thread(get, port, "/readyz") == (503, "no model\n")
            await bus.report_recovered("predict")
            broker.kill()
            await eventually(lambda: bus.unready_reason() is not None)
            status, reason = await asyncio.to_thread(get, port, "/readyz")
            assert (status, "no connection" in reason) == (503, True)
            assert await asyncio.to_thread(get, port, "/livez") == (200, "alive\n")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_g3_silent_clients_do_not_block_others():
    """G3: connections that send nothing do not keep requests from being answered."""
    health = HealthServer(f"127.0.0.1:{(port := free_port())}", lambda: None)
    task = asyncio.create_task(health.run())
    silent = []
    try:
        async with asyncio.timeout(DEADLINE_S):
            while len(silent) < 8:
                try:
                    silent.append(await asyncio.open_connection("127.0.0.1", port))
                except OSError:
                    await asyncio.sleep(0)
            assert await asyncio.to_thread(get, port, "/livez") == (200, "alive\n")
    finally:
        for _, writer in silent:
            writer.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_g3_idle_connections_give_way_to_requests():
    """G3: two hundred connections that send nothing or half a head are bounded, and /livez is answered."""
    health = HealthServer(f"127.0.0.1:{(port := free_port())}", lambda: None)
    task = asyncio.create_task(health.run())
    idle = []
    try:
        async with asyncio.timeout(DEADLINE_S):
            while len(idle) < 200:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:  # it does not listen yet
                    await asyncio.sleep(0)
                    continue
                writer.write(b"GET /livez" if len(idle) % 2 else b"")
                idle.append((reader, writer))
            assert await asyncio.to_thread(get, port, "/livez") == (200, "alive\n")
            # The oldest were closed to make room, long before their time was over.
            with contextlib.suppress(ConnectionError):
                assert await idle[0][0].read() == b""
    finally:
        for _, writer in idle:
            writer.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("host", ["[::1]", "::1"])
async def test_an_address_of_ipv6_is_served_with_and_without_brackets(host):
    """URLs and Kubernetes write it with them."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        port = probe.getsockname()[1]
    task = asyncio.create_task(HealthServer(f"{host}:{port}", lambda: None).run())
    try:
        await eventually(lambda: task.done() or is_listening(port, "::1"))
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_address_in_use_is_an_error_at_the_start(broker):
    """A port that is in use raises HealthServerError."""
    with pytest.raises(HealthServerError, match="cannot serve health probes"):
        await HealthServer(f"127.0.0.1:{broker.port}", lambda: None).run()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /livez HTTP/1.1\r\n\r\n", b"200"),
        (b"GET /readyz?verbose HTTP/1.1\r\n\r\n", b"503"),
        (b"POST /livez HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /etc/passwd HTTP/1.1\r\n\r\n", b"404"),
        (b"\xff\xfe\r\n\r\n", b"405"),
        (b"\r\n\r\n", b"405"),
    ],
)
def test_g4_any_request_gets_a_response(head, status):
    """G4: requests for other paths or with other methods get 404 or 405, also if they are not HTTP."""
    assert response(head, "not yet").split(b" ")[1] == status
