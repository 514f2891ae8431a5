"""List the samples that need a human label, or label one; list the samples that could not be stored."""

from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bus import log
from bus.atomic_file import write_atomic
from bus.mqtt.publish_confirmed import publish_confirmed
from cli import connect, options, run_service
from schemas.image import read_header
from schemas.messages import NEITHER, Feedback
from schemas.topics import FEEDBACK

if TYPE_CHECKING:
    from cloud.dataset.store import Store


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    options.add_dataset(parser)
    parser.add_argument(
        "--limit",
        type=options.positive(int),
        default=20,
        help="maximum number of samples, most informative first (20)",
    )
    parser.add_argument(
        "--dead-letters",
        "--quarantine",
        action="store_true",
        help="list the samples that could not be stored instead, newest first",
    )
    parser.add_argument("--save", type=Path, metavar="DIR", help="save the listed images there")
    parser.add_argument("--json", action="store_true", help="JSON lines")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="write a contact sheet, .png or .html")
    parser.add_argument(
        "--interactive", action="store_true", help="show one photo after the other and label it with a key"
    )
    parser.add_argument(
        "--label",
        nargs=2,
        metavar=("PHOTO_ID", "LABEL"),
        help=f"publish a label as Feedback: a class, or {NEITHER} for a photo of none of them",
    )
    parser.add_argument(
        "--by", type=options.person, default="reviewer", help="name of the reviewer (reviewer)"
    )
    options.add_broker(parser)


def run(arguments: Namespace) -> int:
    """Publish the label, or list what was asked for."""
    from cloud.dataset.store import Store  # noqa: PLC0415  # each command loads only what it needs

    if arguments.dead_letters:
        _list_dead_letters(arguments)
        return 0
    store = Store.open(arguments.dataset, create=False)
    if arguments.label is not None:
        _publish_label(arguments, store)
    elif arguments.interactive:
        _label_interactively(arguments, store)
    else:
        _list(arguments, store)
    return 0


def _list(arguments: Namespace, store: "Store") -> None:
    from cloud.labeling.contact_sheet import Frame, write_sheet  # noqa: PLC0415  # as above
    from cloud.labeling.review_queue import awaiting_review  # noqa: PLC0415  # as above

    frames = []
    for item in awaiting_review(store, arguments.limit):
        fields = {name: getattr(item, name) for name in item.__struct_fields__ if name != "image"}
        confidence = item.confidence or 0.0
        line = f"{item.photo_id}  {confidence:.2f} {item.edge_label or '?':<12} {item.lane}"
        _show(arguments, line, fields)
        _save(arguments, f"{item.photo_id}.{read_header(item.image).format}", item.image)
        caption = f"{item.edge_label or '?'} {confidence:.2f}  {item.lane}"
        teacher = "" if item.teacher_label is None else f"teacher: {item.teacher_label}"
        frames.append(Frame(item.image, (caption, teacher or item.photo_id[:16])))
    if arguments.sheet is not None:
        write_sheet(arguments.sheet, frames)


def _list_dead_letters(arguments: Namespace) -> None:
    from cloud.dataset.dead_letters import DeadLetterTable  # noqa: PLC0415  # as above

    for message in DeadLetterTable.open(arguments.dataset, create=False).newest(arguments.limit):
        arrived = datetime.fromtimestamp(message.received_at_ms / 1000, UTC)
        fields = {
            "photo_id": message.key,
            "node": message.node,
            "received_at_ms": message.received_at_ms,
            "size_bytes": len(message.payload),
            "reason": message.reason,
        }
        line = f"{message.key}  {arrived:%Y-%m-%d %H:%M:%S}Z  {message.node}  {message.reason}"
        _show(arguments, line, fields)
        # `.bin`, because the payload is a message with an image inside, and perhaps not even that.
        _save(arguments, f"{message.key}.bin", message.payload)


def _show(arguments: Namespace, line: str, fields: dict[str, object]) -> None:
    print(msgspec.json.encode(fields).decode() if arguments.json else line)


def _save(arguments: Namespace, name: str, content: bytes) -> None:
    if arguments.save is not None:
        write_atomic(arguments.save / name, content)


def _publish_label(arguments: Namespace, store: "Store") -> None:
    """Publish a human label for a sample, as `mosquitto_pub` could."""
    from cloud.labeling.review_queue import feedback_for  # noqa: PLC0415  # as above

    photo_id, label = arguments.label
    feedback = feedback_for(store, photo_id, label, arguments.by)
    log.configure("error")
    run_service.run(_publish(arguments, feedback))
    print(f"{photo_id}: {label}")


def _label_interactively(arguments: Namespace, store: "Store") -> None:
    from cli.cloud.label_session import label_photos  # noqa: PLC0415  # as above
    from cloud.labeling.review_queue import awaiting_review  # noqa: PLC0415  # as above

    log.configure("error")  # log lines would overwrite the photo
    published = run_service.run(label_photos(arguments, store, awaiting_review(store, arguments.limit)))
    print(f"{published} labels published")


async def _publish(arguments: Namespace, feedback: Feedback) -> None:
    bus = connect.bus(arguments, "review")
    echoes = bus.subscribe(FEEDBACK, node=feedback.node, device=feedback.device)
    async with connect.connected(arguments, bus):
        await publish_confirmed(bus, echoes, FEEDBACK, feedback, node=feedback.node, device=feedback.device)
