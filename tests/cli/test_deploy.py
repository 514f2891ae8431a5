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
from tests.conftest import ROOT
from tests.router import StandInRouter, gateway_running

NODES = ("edge-1", "edge-2")
TOPICS = [one.name for node in NODES for one in node_routes(node)]


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
    """Run the command; returns its exit code and its lines."""
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.STDOUT}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", *words, cwd=ROOT, **pipes
    )
    async with asyncio.timeout(90):
        said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode().splitlines()


class Fleet:
    """Two nodes without Rules, the stand-ins of KubeEdge and of the API server, and a real gateway."""

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
        where = ("--server", self.api.url, "--server-token", str(self._token), "--router", self.router.url)
        here = ("--gateway", f"http://{self._listen}", "--broker", f"127.0.0.1:{self._broker.port}")
        return await gleaner("deploy", "verify", "--timeout", "0.5", *where, *here, *words)


@pytest.fixture
def fleet(broker, edges, tmp_path) -> Fleet:
    return Fleet(broker, edges, tmp_path)


@pytest.mark.slow
async def test_a_new_fleet_gets_its_rules_and_each_is_seen_to_work(fleet):
    """In an empty cluster everything is made, for the nodes with KubeEdge's label; then nothing is left."""
    async with fleet.running():
        code, lines = await fleet.verify()
        assert (code, lines[1:]) == (0, [f"ok   {topic}: works" for topic in TOPICS])
        assert "up.edge-2.sample" in lines[0]
        made = list(fleet.api.log)
        assert await fleet.verify("--check") == (0, lines[1:])
    assert fleet.api.log == made


@pytest.mark.slow
async def test_a_rule_made_while_its_node_was_away_is_named_and_made_anew(fleet):
    """KubeEdge's trap: such a Rule never works. A probe finds it, and it works once it is made anew."""
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
        silent = "the Router took the probe, but the gateway never saw it"
        assert (code, lines[:3]) == (1, [f"FAIL {topic}: {silent}" for topic in TOPICS[:3]])
        code, lines = await fleet.verify()
        assert (code, lines[-3:]) == (0, [f"ok   {topic}: works" for topic in TOPICS[:3]])
    assert fleet.api.log.count("delete up.edge-1.sample") == 1
    assert not [line for line in fleet.api.log if line.startswith("delete up.edge-2")]


@pytest.mark.slow
async def test_a_lossy_bus_is_not_taken_for_a_broken_rule(fleet):
    """A probe that gets lost is sent again before a Rule is called broken."""
    fleet.router.deaf.clear()
    fleet.router.loss, fleet.router.seed = 0.2, 3
    async with fleet.running():
        code, lines = await fleet.verify("--check", "--nodes", ",".join(NODES))
    assert (code, lines) == (0, [f"ok   {topic}: works" for topic in TOPICS])
    assert fleet.router.counts["up lost"] + fleet.router.counts["down lost"] > 0


async def test_rules_are_rendered_for_a_list_of_nodes(tmp_path):
    """Rendering needs no cluster, and feedback crosses for the devices that are named."""
    folder = tmp_path / "rules"
    code, lines = await gleaner(
        "deploy", "render", "--nodes", "edge-1,edge-2", "--devices", "edge-2/pi-1", "--out", str(folder)
    )
    assert (code, sorted(lines)) == (0, sorted(str(path) for path in folder.iterdir()))
    assert 'topic: "v1/feedback/edge-2/pi-1"' in (folder / "rules.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--nodes", "Edge_1"), "expected a DNS label"),
        (("--nodes", "edge-1", "--devices", "pi-1"), "expected NODE/DEVICE, got 'pi-1'"),
        (("--nodes", "edge-1", "--devices", "edge-2/pi-1"), "expected a node of ['edge-1'], got edge-2"),
        ((), "expected --server, or to run in a pod"),
        (("--server", "http://127.0.0.1:1"), "expected an answer"),
        (
            ("--server", "http://127.0.0.1:1", "--server-token", "/nowhere"),
            "a token and a certificate to read",
        ),
    ],
)
async def test_what_cannot_be_rendered_is_said_in_a_sentence(tmp_path, words, said):
    """A wrong name, device or server ends in one sentence, no traceback and nothing written."""
    code, lines = await gleaner("deploy", "render", "--out", str(tmp_path / "rules"), *words)
    assert code != 0
    assert said in lines[-1]
    assert not (tmp_path / "rules").exists()
