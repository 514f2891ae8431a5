"""A node is drained, removed from the cluster, and joins again."""

import asyncio
import time

import pytest

from tests.pods import rollout
from tests.pods.conftest import LATER, Load, Note
from tests.pods.kubectl import until
from tests.pods.lab import PodLab

pytestmark = [pytest.mark.pods, pytest.mark.slow, pytest.mark.timeout(1800)]

REMOVED_S = 20.0


async def test_a_node_is_drained_removed_and_joins_again(lab: PodLab, load: Load, note: Note) -> None:
    """Drained or removed, it answers on, and its samples wait until it is back.

    A drain leaves pods of DaemonSets, and a removed node runs its pods until it is turned off. Here it joins
    again instead, and edged replaces them.
    """
    if LATER not in lab.joined:
        await rollout.admit(lab, LATER)
    edge = lab.edges[LATER]
    async with load("drain, removal and joining again") as cameras:
        said = await lab.kubectl.run("drain", LATER, "--ignore-daemonsets", "--delete-emptydir-data")
        assert f"node/{LATER} drained" in said
        note("node drained: longest wait for a result", f"{await cameras.keep_answering(REMOVED_S):.1f} s")
        await asyncio.to_thread(edge.edgecore.stop)
        await lab.kubectl.run("delete", "node", LATER)
        began = time.monotonic()

        async def gone() -> bool:
            return all(pod.node != LATER for pod in await lab.pods())

        await until(gone, f"no pod bound to {LATER}")
        note("node removed: its pods are gone from the cluster after", f"{time.monotonic() - began:.0f} s")
        note("node removed: longest wait for a result", f"{await cameras.keep_answering(REMOVED_S):.1f} s")
        began = time.monotonic()
        await lab.join_again(LATER)
        note("removed node ready again after", f"{time.monotonic() - began:.0f} s")
        await lab.ready(tuple(lab.joined))
        note("removed node's pods ready again after", f"{time.monotonic() - began:.0f} s")
        note("removed node: next results after", f"{await cameras.answers(2):.1f} s")
