"""The edge handler as a whole: policies, receipts, memory and shutdown."""

import io
import random

import pytest
from msgspec import structs
from PIL import Image

from bus.config import OutboxLimits
from schemas.messages import Policy, Receipt
from schemas.policy_rules import Caps, HarvestRules
from schemas.topics import POLICY, RECEIPT
from tests.conftest import eventually
from tests.nodes import (
    NODE,
    Observer,
    counted,
    edge_process,
    edge_running,
    enveloped,
    photo,
    photo_id,
    station,
)


async def test_a_policy_applies_from_the_next_photo(config):
    """A malformed policy changes nothing."""
    async with station(config) as seen:
        await seen.send(enveloped(1, photo(1, "red")))
        assert (await seen.answer(photo_id(1))).harvest == "auto"
        rules = HarvestRules(
            auto_confidence=1.0,
            uncertain_above=1.0,
            near_duplicate_s=0,
            audit_share=0,
        )
        await seen.bus.publish(POLICY, Policy(node=NODE, harvest=rules), node=NODE)
        await seen.bus.publish_bytes(POLICY.name(node=NODE), b'{"v": 1, "harvest": 7}')
        await seen.send(enveloped(2, photo(2, "grey")))
        assert (await seen.answer(photo_id(2))).harvest == "between-thresholds"


async def test_a_cleared_policy_brings_back_the_rules_of_the_configuration(config):
    """An empty message is how a retained policy is cleared; it is not a malformed one."""
    nothing = HarvestRules(auto_confidence=1.0, uncertain_above=1.0, near_duplicate_s=0, audit_share=0)
    own = structs.replace(config.harvest, near_duplicate_s=0)
    async with station(structs.replace(config, harvest=own)) as seen:
        await seen.bus.publish(POLICY, Policy(node=NODE, harvest=nothing), node=NODE)
        await seen.send(enveloped(1, photo(1, "red")))
        assert (await seen.answer(photo_id(1))).harvest == "between-thresholds"
        await seen.bus.publish_bytes(POLICY.name(node=NODE), b"", retain=True)
        await seen.send(enveloped(2, photo(2, "red")))
        assert (await seen.answer(photo_id(2))).harvest == "auto"


async def test_a_receipt_ends_the_resending_of_a_sample(config):
    """Whether stored, duplicate or refused; a malformed receipt is counted and changes nothing."""
    async with Observer(config.broker).watching() as seen:
        async with edge_running(config):
            await seen.status("online")
            for number in range(4):
                await seen.send(enveloped(number, photo(number)))
            await eventually(lambda: len({sample.photo_id for sample in seen.samples}) == 4)
            await seen.bus.publish_bytes(RECEIPT.name(node=NODE), b"no receipt")
            for number, status in enumerate(("stored", "duplicate", "refused")):
                receipt = Receipt(photo_id=photo_id(number), node=NODE, status=status, received_at_ms=1)
                await seen.bus.publish(RECEIPT, receipt, node=NODE)
            await eventually(lambda: {sample.photo_id for sample in seen.samples[-3:]} == {photo_id(3)})
        counters = await counted(seen)
        wanted = ("receipt.stored", "receipt.duplicate", "receipt.refused", "receipt.malformed")
        assert [counters.get(name) for name in wanted] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("sendings", "resend_s", "outcomes"),
    [
        (1, 600.0, ["auto", "auto", "cap-per-hour", "auto", "cap-per-hour"]),
        (2, 0.1, ["auto", "auto", "cap-per-hour", "cap-per-hour", "cap-per-hour"]),
    ],
)
async def test_a_duplicate_refunds_its_sample(config, sendings, resend_s, outcomes):
    """A receipt `duplicate` makes room for one more sample, however often it arrives.

    Not if the sample was sent more than once: then the first sending may have been stored.
    """
    rules = HarvestRules(near_duplicate_s=0, audit_share=0, caps=Caps(per_hour=2))
    one_by_one = OutboxLimits(window=1, resend_first_s=resend_s, resend_cap_s=resend_s)
    async with station(structs.replace(config, harvest=rules, outbox=one_by_one)) as seen:
        receipt = Receipt(photo_id=photo_id(0), node=NODE, status="duplicate", received_at_ms=1)
        found = []
        for number in range(5):
            if number == 3:
                await eventually(lambda: len(seen.samples) >= sendings)
                for _ in range(3):
                    await seen.bus.publish(RECEIPT, receipt, node=NODE)
                await eventually(lambda: seen.samples[-1].photo_id == photo_id(1))
            await seen.send(enveloped(number, photo(number)))
            found.append((await seen.answer(photo_id(number))).harvest)
        assert found == outcomes


def picture(number: int) -> bytes:
    """Return a photo of camera size for every tenth number, else a small one."""
    size = (1280, 960) if number % 10 == 0 else (160, 120)
    grain = Image.frombytes("RGB", (80, 60), random.Random(number).randbytes(80 * 60 * 3))
    out = io.BytesIO()
    grain.resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=85)
    return out.getvalue()


async def test_the_handler_is_small_and_shuts_down_cleanly(config, tmp_path, monkeypatch):
    """After 1000 photos `gleaner edge` uses less than 100 MB; SIGTERM ends it with an offline status."""
    # As installed with the extra `edge`: the extra `damage`, which loads NumPy, is in this environment too.
    (tmp_path / "simplejpeg.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with edge_process(config, tmp_path) as edge:
        async with Observer(config.broker).watching() as seen:
            edge.start()
            await seen.status("online")
            ready_cpu_s = edge.cpu_s()
            pictures = [picture(number) for number in range(50)]
            for number in range(1000):
                await seen.send(enveloped(number, pictures[number % 50]))
                await eventually(lambda sent=number: len(seen.final()) > sent - 50)
            await eventually(lambda: len(seen.final()) == 1000)
            resident_mb = edge.resident_mb()
            assert resident_mb < 100
            assert ready_cpu_s < 4
            assert edge.stop() == 0
            assert (await seen.status("offline")).reason == "it was stopped"
