"""List what waits for a person's label, or give one; list what could not be used."""

from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bus import log
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
        "--limit", type=options.positive(int), default=20, help="at most so many, most informative first (20)"
    )
    parser.add_argument(
        "--quarantine", action="store_true", help="samples that could not be used instead, newest first"
    )
    parser.add_argument("--save", type=Path, metavar="DIR", help="write what is listed there to look at")
    parser.add_argument("--json", action="store_true", help="JSON lines")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="a contact sheet of it, .png or .html")
    parser.add_argument(
        "--interactive", action="store_true", help="show one after the other and take a key as its label"
    )
    parser.add_argument(
        "--label",
        nargs=2,
        metavar=("PHOTO_ID", "LABEL"),
        help=f"give a label, as Feedback: a class, or {NEITHER} for a photo of none of them",
    )
    parser.add_argument("--by", type=options.person, default="reviewer", help="who says so (reviewer)")
    options.add_broker(parser)


def run(arguments: Namespace) -> int:
    """Give the label, or list what was asked for."""
    from cloud.dataset.store import Store  # noqa: PLC0415  # each step loads what it needs, and no more

    if arguments.dead_letters:
        _list_quarantine(arguments)
        return 0
    store = Store.open(arguments.dataset, create=False)
    if arguments.label is not None:
        _give_label(arguments, store)
    elif arguments.interactive:
        _ask(arguments, store)
    else:
        _list(arguments, store)
    return 0


def _list(arguments: Namespace, store: "Store") -> None:
    from cloud.labeling.contact_sheet import Frame, write_sheet  # noqa: PLC0415  # as above
    from cloud.labeling.review_queue import awaiting_review  # noqa: PLC0415  # as above

    frames = []
    for review in awaiting_review(store, arguments.limit):
        fields = {name: getattr(review, name) for name in review.__struct_fields__ if name != "image"}
        sure = review.confidence or 0.0
        line = f"{review.photo_id}  {sure:.2f} {review.edge_label or '?':<12} {review.lane}"
        _show(arguments, line, fields)
        _save(arguments, f"{review.photo_id}.{read_header(review.image).format}", review.image)
        said = f"{review.edge_label or '?'} {sure:.2f}  {review.lane}"
        teacher = "" if review.teacher_label is None else f"teacher: {review.teacher_label}"
        frames.append(Frame(review.image, (said, teacher or review.photo_id[:16])))
    if arguments.sheet is not None:
        write_sheet(arguments.sheet, frames)


def _list_quarantine(arguments: Namespace) -> None:
    from cloud.dataset.dead_letters import DeadLetterTable  # noqa: PLC0415  # as above

    for refused in DeadLetterTable.open(arguments.dataset, create=False).newest(arguments.limit):
        arrived = datetime.fromtimestamp(refused.received_at_ms / 1000, UTC)
        fields = {
            "photo_id": refused.key,
            "node": refused.node,
            "received_at_ms": refused.received_at_ms,
            "size_bytes": len(refused.payload),
            "reason": refused.reason,
        }
        line = f"{refused.key}  {arrived:%Y-%m-%d %H:%M:%S}Z  {refused.node}  {refused.reason}"
        _show(arguments, line, fields)
        _save(arguments, f"{refused.key}.bin", refused.payload)


def _show(arguments: Namespace, line: str, fields: dict[str, object]) -> None:
    print(msgspec.json.encode(fields).decode() if arguments.json else line)


def _save(arguments: Namespace, name: str, content: bytes) -> None:
    if arguments.save is not None:
        arguments.save.mkdir(parents=True, exist_ok=True)
        (arguments.save / name).write_bytes(content)


def _give_label(arguments: Namespace, store: "Store") -> None:
    """Publish a person's label for a harvested photo, as anybody could with `mosquitto_pub`."""
    from cloud.labeling.review_queue import feedback_for  # noqa: PLC0415  # as above

    photo_id, label = arguments.label
    feedback = feedback_for(store, photo_id, label, arguments.by)
    log.configure("error")
    run_service.run(_publish(arguments, feedback))
    print(f"{photo_id}: {label}")


def _ask(arguments: Namespace, store: "Store") -> None:
    from cli.cloud.label_session import label_photos  # noqa: PLC0415  # as above
    from cloud.labeling.review_queue import awaiting_review  # noqa: PLC0415  # as above

    log.configure("error")
    published = run_service.run(label_photos(arguments, store, awaiting_review(store, arguments.limit)))
    print(f"{published} labels published")


async def _publish(arguments: Namespace, feedback: Feedback) -> None:
    bus = connect.bus(arguments, "review")
    echoes = bus.subscribe(FEEDBACK, node=feedback.node, device=feedback.device)
    async with connect.connected(arguments, bus):
        await publish_confirmed(bus, echoes, FEEDBACK, feedback, node=feedback.node, device=feedback.device)
