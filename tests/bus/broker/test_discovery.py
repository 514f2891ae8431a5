"""A broker is announced and found by real multicast DNS, on the loopback interface."""

import asyncio
import gc

import pytest

from bus.broker.discovery import Found, announced, find_broker
from schemas.errors import TransientError

pytest.importorskip("zeroconf", reason="the extra lan is not installed")

LOOPBACK = "127.0.0.1"


async def test_the_broker_of_a_node_is_found():
    """Each of two nodes finds its own broker by the name in the certificate, in any order of start."""
    early = asyncio.create_task(find_broker("edge-b", 60, [LOOPBACK]))
    async with (
        announced("edge-a", "a.example", 8883, LOOPBACK),
        announced("edge-b", LOOPBACK, 9883, LOOPBACK),
    ):
        assert await early == Found(LOOPBACK, 9883)
        assert await find_broker("edge-a", 60, [LOOPBACK]) == Found("a.example", 8883)
        with pytest.raises(TransientError, match=r"'edge-c' was announced within 10 s; .* edge-a"):
            await find_broker("edge-c", 10, [LOOPBACK])


async def test_what_ends_is_not_found():
    """When the announcement ends, it is taken back; the sentence names the node and what to do."""
    async with announced("edge-1", LOOPBACK, 8883, LOOPBACK):
        pass
    with pytest.raises(
        TransientError, match=r"no broker of node 'edge-1' was announced within 1 s; is 'gleaner"
    ):
        await find_broker("edge-1", 1, [LOOPBACK])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_an_interface_that_cannot_announce_is_named():
    """Before the block begins; `gleaner up` prints the sentence and continues."""
    with pytest.raises(TransientError, match=r"cannot announce the broker on 192\.0\.2\.1: "):
        async with announced("edge-1", "a.example", 8883, "192.0.2.1"):
            pytest.fail("it was announced")
    gc.collect()  # zeroconf leaves a socket open then, whose warning must not meet another test
