import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from bus.broker.process import BrokerProcess, free_port
from bus.config import Broker
from bus.gateway.config import GatewayConfig
from bus.gateway.routes import node_routes
from tests.apiserver import TOKEN, StandInApiServer
from tests.conftest import DEADLINE_S, ROOT
from tests.router import StandInRouter, gateway_running

NODES = ("edge-1", "edge-2")
TOPICS = [route.name for node in NODES for route in node_routes(node)]


@pytest.fixture
def edges(tmp_path, mosquitto) -> Iterator[dict[str, Broker]]:
    """The brokers of two nodes."""
    processes = {node: BrokerProcess(tmp_path / node, program=mosquitto) for node in NODES}
    for process in processes.values():
        process.start()
    yield {node: Broker(port=process.port) for node, process in processes.items()}
    for process in processes.values():
        process.stop()


async def gleaner(*words: str) -> tuple[int, list[str]]:
    """Run the command; return its exit code and output lines."""
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.STDOUT}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", *words, cwd=ROOT, **pipes
    )
    async with asyncio.timeout(DEADLINE_S):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode().splitlines()


class Fleet:
    """Two nodes without Rules, stand-ins for KubeEdge and the API server, and a real gateway."""

    def __init__(self, broker, edges, folder) -> None:
        self._broker = broker
        self._listen = f"127.0.0.1:{free_port()}"
        self._token = folder / "token"
        self._token.write_text(f"{TOKEN}\n")
        self.router = StandInRouter(edges, self._listen, deaf=set(TOPICS))
        self.api = StandInApiServer(self.router, list(NODES))

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Fleet"]:
        async with self.router.running(), self.api.running():
            cloud = Broker(port=self._broker.port)
            config = GatewayConfig(broker=cloud, listen=self._listen, router=self.router.url, nodes=NODES)
            async with gateway_running(config):
                yield self

    async def verify(self, *words: str) -> tuple[int, list[str]]:
        cluster = ("--server", self.api.url, "--server-token", str(self._token), "--router", self.router.url)
        gateway = ("--gateway", f"http://{self._listen}", "--broker", f"127.0.0.1:{self._broker.port}")
        return await gleaner("deploy", "verify", "--timeout", "3", *cluster, *gateway, *words)


@pytest.fixture
def fleet(broker, edges, tmp_path) -> Fleet:
    return Fleet(broker, edges, tmp_path)


@pytest.mark.slow
async def test_verify_creates_the_rules_of_a_new_fleet(fleet):
    """In an empty cluster all Rules are created and work; a second run has nothing to do."""
    async with fleet.running():
        code, lines = await fleet.verify()
        assert (code, lines[1:]) == (0, [f"ok   {topic}: works" for topic in TOPICS])
        assert "up.edge-2.sample" in lines[0]
        log = list(fleet.api.log)
        assert await fleet.verify("--check") == (0, lines[1:])
    assert fleet.api.log == log


@pytest.mark.slow
async def test_verify_recreates_rules_that_do_not_work(fleet):
    """A Rule created while its node was offline never works; `verify` finds it and creates it again."""
    async with fleet.running():
        fleet.router.away.add("edge-1")
        code, lines = await fleet.verify()
        assert code == 1
        assert [line for line in lines if "edge-1:" in line or "edge-1/edge:" in line] == [
            f"FAIL {topic}: the Router did not take the probe (500 no session for node:edge-1)"
            for topic in TOPICS[:3]
        ]
        fleet.router.away.clear()
        code, lines = await fleet.verify("--check")
        silent = "the Router took the probe, but the gateway never received it"
        assert (code, lines[:3]) == (1, [f"FAIL {topic}: {silent}" for topic in TOPICS[:3]])
        code, lines = await fleet.verify()
        assert (code, lines[-3:]) == (0, [f"ok   {topic}: works" for topic in TOPICS[:3]])
    assert fleet.api.log.count("delete up.edge-1.sample") == 1
    assert not [line for line in fleet.api.log if line.startswith("delete up.edge-2")]


@pytest.mark.slow
async def test_verify_repeats_lost_probes(fleet):
    """A Rule works although its first probe is lost."""
    fleet.router.deaf.clear()
    fleet.router.lose_once = set(TOPICS)
    async with fleet.running():
        code, lines = await fleet.verify("--check", "--nodes", ",".join(NODES))
    assert (code, lines) == (0, [f"ok   {topic}: works" for topic in TOPICS])
    assert fleet.router.counts["up lost"] == len(TOPICS)


async def test_rules_are_rendered_for_a_list_of_nodes(tmp_path):
    """`render` with --nodes needs no cluster, and writes Rules for the feedback of the given devices."""
    folder = tmp_path / "rules"
    code, lines = await gleaner(
        "deploy", "render", "--nodes", "edge-1,edge-2", "--devices", "edge-2/pi-1", "--out", str(folder)
    )
    assert (code, sorted(lines)) == (0, sorted(str(path) for path in folder.iterdir()))
    assert 'topic: "v1/feedback/edge-2/pi-1"' in (folder / "rules.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--nodes", "Edge_1"), "expected a DNS label"),
        (("--nodes", "edge-1", "--devices", "pi-1"), "expected NODE/DEVICE, got 'pi-1'"),
        (("--nodes", "edge-1", "--devices", "edge-2/pi-1"), "expected a node of ['edge-1'], got edge-2"),
        ((), "this process does not run in a pod"),
        (("--server", "http://127.0.0.1:1"), "GET /api/v1/nodes failed"),
        (
            ("--server", "http://127.0.0.1:1", "--server-token", "/nowhere"),
            "cannot read token or CA certificate",
        ),
    ],
)
async def test_a_failed_render_is_an_error_message(tmp_path, words, error):
    """A wrong name, device or server ends with an error message, and nothing is written."""
    code, lines = await gleaner("deploy", "render", "--out", str(tmp_path / "rules"), *words)
    assert code != 0
    assert error in lines[-1]
    assert not (tmp_path / "rules").exists()
