"""Gleaner on a real KubeEdge: nothing is lost or duplicated by any failure."""

import asyncio
from pathlib import Path

import pytest

from bus.gateway.routes import node_routes
from bus.gateway.rules.rules import NAMESPACE, rule_up
from schemas.messages import Policy
from schemas.topics import FEEDBACK, POLICY, RELEASE
from tests.conftest import eventually, running
from tests.faults import configs
from tests.kubeedge import objects
from tests.kubeedge.conftest import Note
from tests.kubeedge.fleet import Fleet, fleet, name_of
from tests.kubeedge.lab import NODES, Lab
from tests.kubeedge.settings import BrokerConnection
from tests.serving import pack, release_of, saved_models

pytestmark = [pytest.mark.kubeedge, pytest.mark.slow, pytest.mark.timeout(1800)]

FIRST, SECOND = NODES
AWAY_S = 60.0
SHORT_S = 5.0
ARRIVES_S = 600.0


async def test_g1_g2_on_kubeedge_failures_lose_and_duplicate_nothing(
    lab: Lab, tmp_path: Path, note: Note
) -> None:
    """Two nodes, one per transport: each photo has one answer and each sample one row, after every fault."""
    await asyncio.gather(
        lab.connect(FIRST, BrokerConnection("websocket")), lab.connect(SECOND, BrokerConnection("quic"))
    )
    async with fleet(lab, tmp_path / "fleet") as running_fleet:
        await all_rules_work(running_fleet, note)
        for fault in FAULTS:
            await fault(running_fleet)
            took_s = await running_fleet.comes_through()
            note(f"{fault.__name__.replace('_', ' ')}: receipts at both nodes after", f"{took_s:.0f} s")
        ledger = await running_fleet.settle()
        note("photos, lost, doubled", f"{ledger.photos}, {ledger.photos_lost}, {ledger.photos_doubled}")
        note("samples, lost, doubled", f"{ledger.samples}, {ledger.samples_lost}, {ledger.samples_doubled}")
        sent, resent = (running_fleet.counted(name) for name in ("sample.sent", "sample.resent"))
        note("samples sent, sent again", f"{sent}, {resent}")
        assert ledger.photos > 0
        assert ledger.samples > 0
        assert ledger.verdict == []


async def all_rules_work(made: Fleet, note: Note) -> None:
    """Create the Rules from the cluster's node list; check that each works and samples arrive."""
    count = await made.apply_rules()
    verified = await made.deploy("verify")
    assert verified.code == 0, verified.out + verified.err
    note("rules rendered; probes that work", f"{count}; {verified.out.count('ok  ')}")
    note("first receipts at both nodes after", f"{await made.comes_through():.0f} s")


async def edgecore_killed(made: Fleet) -> None:
    """Kill both edgecores at the same time, like a power cut."""
    for node in made.lab.nodes.values():
        node.edgecore.kill()
        node.edgecore.start()


async def gateway_killed(made: Fleet) -> None:
    """Stop the gateway for a while, so that the Router's posts fail."""
    await made.cloud["gateway"].kill()
    await asyncio.sleep(SHORT_S)
    await made.cloud["gateway"].start()


async def cloud_broker_away(made: Fleet) -> None:
    """Stop the broker, so that the gateway answers 503 when its queue is full; the Router ignores that."""
    await made.broker.kill()
    await asyncio.sleep(2 * SHORT_S)
    await made.broker.start()


async def cloudcore_away(made: Fleet) -> None:
    """Stop cloudcore and its Router for a minute while photos are taken."""
    made.lab.cloudcore.kill()
    await asyncio.sleep(AWAY_S)
    made.lab.cloudcore.start()


async def released_to_a_node_that_is_away(made: Fleet) -> None:
    """Publish policy and release while a node is offline; both arrive when it is online again."""
    bundle = await asyncio.to_thread(pack, saved_models() / "straight", made.folder / "2.tar")
    away = made.lab.nodes[SECOND]
    away.edgecore.stop()
    bus = made.cloud_bus()
    async with running(bus):
        for node in NODES:
            await bus.publish(POLICY, Policy(node=node, harvest=configs.RULES), node=node)
            await bus.publish(RELEASE, release_of(bundle, 2, node=node), node=node)
        await eventually(lambda: 2 in made.seen[FIRST].versions, within_s=ARRIVES_S)
        assert 2 not in made.seen[SECOND].versions
        away.edgecore.start()
        await eventually(lambda: 2 in made.seen[SECOND].versions, within_s=ARRIVES_S)
        for node in NODES:
            await eventually((made.at(node) / "edge/last-policy").exists, within_s=ARRIVES_S)


async def rule_made_while_its_node_is_away(made: Fleet) -> None:
    """Create a Rule for a camera's labels while its node is offline: `deploy verify` finds and repairs it."""
    away, camera = made.lab.nodes[FIRST], name_of(FIRST)
    topic = FEEDBACK.name(node=FIRST, device=camera)
    labels = next(one for one in node_routes(FIRST, [camera]) if one.name == topic)
    away.edgecore.stop()
    rule = rule_up(labels, f"http://{made.listen}")
    await made.lab.api.create(objects.rules_path(NAMESPACE), rule)
    away.edgecore.start()
    await made.lab.connected(FIRST)
    checked = await made.deploy("verify", "--check", "--devices", f"{FIRST}/{camera}")
    assert checked.code == 1
    broken = [line for line in checked.out.splitlines() if line.startswith("FAIL")]
    assert [topic in line for line in broken] == [True], checked.out
    repaired = await made.deploy("verify", "--devices", f"{FIRST}/{camera}")
    assert repaired.code == 0, repaired.out + repaired.err


FAULTS = (
    edgecore_killed,
    gateway_killed,
    cloud_broker_away,
    cloudcore_away,
    released_to_a_node_that_is_away,
    rule_made_while_its_node_is_away,
)
