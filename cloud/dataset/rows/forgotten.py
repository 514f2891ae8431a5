"""Marks of forgotten photos, and barriers that keep out samples still in transit: plain functions of rows."""

from cloud.dataset.schema import SCHEMA, Record
from schemas.codec import content_id


def is_forgotten(record: Record) -> bool:
    """Return whether a row is only the mark of a photo that was taken out for good."""
    return record["forgotten_at_ms"] is not None


def forget(record: Record, now_ms: int) -> Record | None:
    """Return the mark that replaces a photo: its id and two times; None if it is one already.

    The mark keeps `received_at_ms`, so that a sample that is sent again is a duplicate and stays out.
    """
    if is_forgotten(record):
        return None
    kept = {name: record[name] for name in ("photo_id", "revision")}
    received_ms = record["received_at_ms"] if record["received_at_ms"] is not None else now_ms
    empty = dict.fromkeys(SCHEMA.names)
    return empty | kept | {"received_at_ms": received_ms, "forgotten_at_ms": now_ms}


def barrier_ids(node: str | None, device: str | None) -> tuple[str, ...]:
    """Return the ids of the barriers that a photo of a camera must pass: of the device, its node, and all.

    A barrier keeps out what was forgotten before it arrived. It is a row like the mark of a photo, whose
    `forgotten_at_ms` is the time up to which photos are kept out. Its id has a capital letter, as no id in a
    message has: nobody can send a photo or a label that takes its place.
    """
    cameras = (f"{node}/{device}", f"{node}/*", "*/*")
    return tuple(f"B{content_id(f'forgotten {camera}'.encode())[1:]}" for camera in cameras)


def barrier_id(node: str | None, device: str | None) -> str:
    """Return the id of the barrier for a device, for a node without one, or for all nodes."""
    return barrier_ids(node, device)[0 if device is not None else 1 if node is not None else 2]


def raise_barrier(photo_id: str, before_ms: int, existing: Record | None, now_ms: int) -> Record | None:
    """Return the record of a barrier, None if it is as high already."""
    if existing is not None and existing["forgotten_at_ms"] >= before_ms:
        return None
    record = existing or dict.fromkeys(SCHEMA.names) | {"photo_id": photo_id, "received_at_ms": now_ms}
    return record | {"forgotten_at_ms": before_ms}
