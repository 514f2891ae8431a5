"""Record what this version writes: `python -m tests.contract.record NAME` creates a folder next to this file.

Run once for each version of the software whose messages later ones must read. A recorded folder is never
changed.
"""

import base64
import json
import shutil
import sys
from pathlib import Path

import msgspec

from schemas import messages as m
from schemas.codec import to_json, to_msgpack
from schemas.policy_rules import Caps, HarvestRules
from schemas.topics import TOPICS

HERE = Path(__file__).resolve().parent
_ID = "0123456789abcdef" * 2
_SENDER = {"node": "edge-1", "device": "pi-1"}
_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000"
    "3a7e9b550000000a49444154789c6360000000020001e221bc330000000049454e44ae426082"
)

FULL: tuple[m.Message, ...] = (
    m.Photo(
        photo_id=_ID,
        **_SENDER,
        image=_PNG,
        taken_at_ms=1_700_000_000_000,
        sequence=7,
        historical=True,
        expires_at_ms=1_700_000_060_000,
    ),
    m.Result(
        photo_id=_ID,
        **_SENDER,
        status="ok",
        label="cat",
        confidence=0.875,
        scores={"cat": 0.875, "dog": 0.125},
        raw_confidence=0.9375,
        margin=0.75,
        entropy=0.5,
        novelty=1.25,
        model="pets",
        model_version=2,
        harvest="auto",
        taken_at_ms=1_700_000_000_000,
        answered_at_ms=1_700_000_000_100,
        edge_ms=42.5,
        historical=True,
    ),
    m.Result(
        photo_id=_ID,
        **_SENDER,
        status="rejected",
        code="too-many-pixels",
        reason="expected at most 16000000 pixels, got 30000 x 30000",
        answered_at_ms=1,
    ),
    m.Result(photo_id=_ID, **_SENDER, status="deferred", reason="the model server is away", answered_at_ms=1),
    m.Sample(
        photo_id=_ID,
        **_SENDER,
        image=_PNG,
        width=1,
        height=1,
        dhash="00ff00ff00ff00ff",
        lane="hard",
        label="cat",
        confidence=0.625,
        scores={"cat": 0.625, "dog": 0.375},
        raw_confidence=0.75,
        margin=0.25,
        entropy=0.9375,
        novelty=0.5,
        inclusion=0.0625,
        model="pets",
        model_version=2,
        embedding=bytes(range(16)),
        taken_at_ms=1_700_000_000_000,
        harvested_at_ms=1_700_000_000_100,
    ),
    m.Receipt(photo_id=_ID, node="edge-1", status="duplicate", reason="stored before", received_at_ms=1),
    m.Feedback(photo_id=_ID, **_SENDER, label="dog", by="maria", at_ms=1_700_000_000_000),
    m.Command(**_SENDER, action="set-interval", interval_s=2.5),
    m.Policy(
        node="edge-1",
        harvest=HarvestRules(
            auto_confidence=0.95,
            hard_confidence=0.5,
            auto=False,
            auto_by_class={"cat": 0.875},
            hard_margin=0.125,
            uncertain_above=0.75,
            hard_novelty=1.5,
            audit_share=0.0625,
            quota_per_day=100,
            quotas={"cat": 50},
            near_duplicate_bits=4,
            near_duplicate_s=60.0,
            caps=Caps(
                per_minute=1, per_hour=2, per_day=3, bytes_per_minute=4, bytes_per_hour=5, bytes_per_day=6
            ),
        ),
        issued_at_ms=1,
    ),
    m.Release(
        node="edge-1",
        model="pets",
        version=2,
        url="https://models.example/pets/2.tar",
        sha256="ab" * 32,
        size_bytes=14_000_000,
        classes=["cat", "dog"],
        metrics={"accuracy": 0.988},
        temperature=1.5,
        stage="canary",
        share=0.25,
        baseline=1,
        released_at_ms=1,
    ),
    m.Status(
        node="edge-1",
        name="edge",
        state="degraded",
        at_ms=2,
        since_ms=1,
        software="0.1.0",
        run_id="00ff00ff00ff00ff",
        reason="model server away",
        model=m.ServedModel(name="pets", version=2, state="available", reason="none"),
        canary=m.CanaryReport(
            stage="shadow",
            champion=m.VersionStats(version=1, answered=9, failed=1, p95_ms=12.5),
            challenger=m.VersionStats(version=2, answered=8, failed=2, p95_ms=25.0),
            compared=7,
            disagreed=3,
            since_ms=1,
        ),
        counters={"photo.received": 3},
    ),
    m.Event(
        node="cloud",
        name="trainer",
        event="model.trained",
        at_ms=1,
        reason="twenty new labels",
        facts={"version": 2, "accuracy": 0.988, "by": "maria", "promoted": True},
    ),
    m.Steering(
        node="cloud",
        name="rollout",
        order_id=_ID,
        action="roll-back",
        version=2,
        began_ms=1,
        by="maria",
        reason="the dogs are wrong",
        at_ms=2,
    ),
)


def least(message: m.Message) -> m.Message:
    """Return the message with only its required fields."""
    kind = type(message)
    required = {f.name: getattr(message, f.name) for f in msgspec.structs.fields(kind) if f.required}
    return kind(**required)


def main(name: str) -> None:
    """Write schemas and messages to the folder."""
    folder = HERE / name
    folder.mkdir()
    for schema in (HERE.parents[1] / "schemas/v1").glob("*.schema.json"):
        shutil.copy(schema, folder)
    vectors = []
    for message in (*FULL, *map(least, FULL)):
        topic = next(topic for topic in TOPICS if topic.message is type(message))
        address = topic.name(**{name: getattr(message, name) for name in topic.names})
        for write in (to_json, to_msgpack):
            payload = base64.b64encode(write(message)).decode()
            vectors.append({"topic": address, "fields": json.loads(to_json(message)), "payload": payload})
    (folder / "vectors.json").write_text(json.dumps(vectors, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
