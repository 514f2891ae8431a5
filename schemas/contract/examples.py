"""A valid message of each kind, for the published documents and for clients in other languages."""

from schemas import messages as m
from schemas.events import EventName
from schemas.policy_rules import HarvestRules

_PHOTO_ID = "0123456789abcdef0123456789abcdef"
_TAKEN_MS = 1_767_225_600_000
_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000"
    "3a7e9b550000000a49444154789c6360000000020001e221bc330000000049454e44ae426082"
)
"""One grey pixel."""

EXAMPLES: tuple[m.Message, ...] = (
    m.Photo(photo_id=_PHOTO_ID, node="edge-1", device="pi-1", image=_PNG, taken_at_ms=_TAKEN_MS, sequence=7),
    m.Result(
        photo_id=_PHOTO_ID,
        node="edge-1",
        device="pi-1",
        status="ok",
        label="cat",
        confidence=0.98,
        scores={"cat": 0.98, "dog": 0.02},
        model="pets",
        model_version=2,
        harvest="not harvested: near-duplicate",
        taken_at_ms=_TAKEN_MS,
        answered_at_ms=_TAKEN_MS + 60,
        edge_ms=42.5,
    ),
    m.Result(
        photo_id=_PHOTO_ID,
        node="edge-1",
        device="pi-1",
        status="rejected",
        code="too-large",
        reason="size of the photo: expected at most 3145728 bytes, got 4400000",
        answered_at_ms=_TAKEN_MS + 60,
    ),
    m.Sample(
        photo_id=_PHOTO_ID,
        node="edge-1",
        device="pi-1",
        image=_PNG,
        width=1,
        height=1,
        dhash="00ff00ff00ff00ff",
        lane="hard",
        label="cat",
        confidence=0.55,
        scores={"cat": 0.55, "dog": 0.45},
        model="pets",
        model_version=2,
        taken_at_ms=_TAKEN_MS,
        harvested_at_ms=_TAKEN_MS + 60,
    ),
    m.Receipt(photo_id=_PHOTO_ID, node="edge-1", status="stored", received_at_ms=_TAKEN_MS + 900),
    m.Feedback(photo_id=_PHOTO_ID, node="edge-1", device="pi-1", label="dog", by="maria", at_ms=_TAKEN_MS),
    m.Command(node="edge-1", device="pi-1", action="capture"),
    m.Command(node="edge-1", device="pi-1", action="set-interval", interval_s=2.5),
    m.Policy(node="edge-1", harvest=HarvestRules(audit_share=0.05), issued_at_ms=_TAKEN_MS),
    m.Release(
        node="edge-1",
        model="pets",
        version=2,
        url="https://models.example/pets/2.tar",
        sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        size_bytes=24_000_000,
        classes=["cat", "dog"],
        released_at_ms=_TAKEN_MS,
    ),
    m.Status(
        node="edge-1",
        name="edge",
        state="online",
        at_ms=_TAKEN_MS,
        since_ms=_TAKEN_MS - 60_000,
        software="0.1.0",
        run_id="5f0c1d2e",
        model=m.ServedModel(name="pets", version=2, state="available"),
        counters={"photo.answered": 12},
    ),
    m.Event(
        node="edge-1",
        name="edge",
        event=EventName.MODEL_AVAILABLE,
        at_ms=_TAKEN_MS,
        facts={"model": "pets", "version": 2},
    ),
    m.Forget(
        node="edge-1",
        order_id=_PHOTO_ID,
        photo_ids=[_PHOTO_ID],
        devices={"pi-1": _TAKEN_MS},
        at_ms=_TAKEN_MS + 60_000,
    ),
    m.Steering(
        node="cloud",
        name="rollout",
        order_id=_PHOTO_ID,
        action="pause",
        version=2,
        began_ms=_TAKEN_MS,
        by="maria",
        reason="a camera is being moved",
        at_ms=_TAKEN_MS + 60_000,
    ),
)


def examples_of(kind: type[m.Message]) -> list[m.Message]:
    """Return the examples of a class of messages, at least one."""
    return [message for message in EXAMPLES if type(message) is kind]
