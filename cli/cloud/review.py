"""List the samples that need a human label, or label one; list the samples that could not be stored."""

from argparse import ArgumentParser, Namespace
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bus import log
from bus.files.atomic_file import write_atomic
from bus.mqtt.publish_confirmed import publish_confirmed
from cli import connect, options, run_service
from cli.output import print_error, print_json, print_line
from schemas.class_names import NEITHER
from schemas.errors import TransientError
from schemas.image import ImageError, read_header
from schemas.messages import Feedback
from schemas.text import escaped
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
        help="maximum number of samples, in the order in which labels help most (20)",
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
    parser.add_argument(
        "--wait",
        type=options.positive(float),
        default=15.0,
        metavar="S",
        help="wait up to S seconds until a collector has recorded the labels (15)",
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
        return _publish_label(arguments, store)
    if arguments.interactive:
        return _label_interactively(arguments, store)
    _list(arguments, store)
    return 0


def _list(arguments: Namespace, store: "Store") -> None:
    from cloud.labeling.contact_sheet import Frame, write_sheet  # noqa: PLC0415  # as above
    from cloud.labeling.review_order import reason_text  # noqa: PLC0415  # as above
    from cloud.labeling.review_queue import awaiting_review  # noqa: PLC0415  # as above

    frames: list[Frame] = []
    header = f"{'photo':<32}  {'arrived':<17} {'from':<16} {'conf.':<5} {'label':<12} {'lane':<5} why"
    for item in awaiting_review(store, arguments.limit):
        fields = {name: getattr(item, name) for name in item.__struct_fields__ if name != "image"}
        confidence = item.confidence or 0.0
        origin = f"{item.node or '?'}/{item.device or '?'}"
        line = (
            f"{item.photo_id}  {_time(item.received_at_ms)} {origin:<16} {confidence:<5.2f}"
            f" {item.edge_label or '?':<12} {item.lane or '?':<5} {reason_text(item)}"
        )
        _show(arguments, line, fields, header="" if frames else header)
        _save(arguments, f"{item.photo_id}.{_suffix(item.image)}", item.image)
        caption = f"{item.edge_label or '?'} {confidence:.2f}  {item.lane}"
        teacher = "" if item.teacher_label is None else f"teacher: {item.teacher_label}"
        frames.append(Frame(item.image, (caption, teacher or item.photo_id[:16])))
    if arguments.sheet is not None and not write_sheet(arguments.sheet, frames):
        print_error(f"{escaped(arguments.sheet)} is not written: there is no photo to show")


def _time(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M}Z"


def _suffix(image: bytes) -> str:
    try:
        return read_header(image).format
    except ImageError:
        return "bin"  # as it is stored, to be looked at by other tools


def _list_dead_letters(arguments: Namespace) -> None:
    from cloud.dataset.dead_letters import DeadLetterTable  # noqa: PLC0415  # as above

    header = f"{'photo':<32}  {'arrived':<17} {'node':<12} reason"
    for message in DeadLetterTable.open(arguments.dataset, create=False).newest(arguments.limit):
        fields = {
            "photo_id": message.key,
            "node": message.node,
            "received_at_ms": message.received_at_ms,
            "size_bytes": len(message.payload),
            "reason": message.reason,
        }
        line = f"{message.key:<32}  {_time(message.received_at_ms)} {message.node:<12} {message.reason}"
        _show(arguments, line, fields, header=header)
        header = ""  # above the first line
        # `.bin`, because the payload is a message with an image inside, and perhaps not even that.
        _save(arguments, f"{message.key}.bin", message.payload)


def _show(arguments: Namespace, line: str, fields: dict[str, object], *, header: str) -> None:
    if arguments.json:
        print_json(fields)
        return
    if header:
        print_line(header)
    print_line(line)


def _save(arguments: Namespace, name: str, content: bytes) -> None:
    if arguments.save is not None:
        write_atomic(arguments.save / name, content)


def _publish_label(arguments: Namespace, store: "Store") -> int:
    """Give a photo a label: by the bus for a sample, as `mosquitto_pub` could; else in the dataset."""
    from cloud.dataset.change_log import ChangeLog  # noqa: PLC0415  # as above
    from cloud.dataset.curation import set_label  # noqa: PLC0415  # as above
    from cloud.labeling.label_receipts import MEANINGS, RECORDED  # noqa: PLC0415  # as above
    from cloud.labeling.review_queue import feedback_for  # noqa: PLC0415  # as above

    photo_id, label = arguments.label
    as_person = options.broker(arguments).tls is not None
    given = feedback_for(store, photo_id, label, arguments.by, as_person=as_person)
    if not isinstance(given, Feedback):
        set_label(store, ChangeLog.open(arguments.dataset), given, "relabel")
        print_line(f"{photo_id}: {given.label}: recorded")
        return 0
    log.configure("error")
    outcome = run_service.run(_publish(arguments, given))
    if outcome is None:
        raise TransientError(
            f"{photo_id}: {given.label}: no collector answered within {arguments.wait:g} s",
            hint="is 'gleaner cloud collect' running? 'gleaner cloud label' needs none",
        )
    print_line(f"{photo_id}: {given.label}: {MEANINGS.get(outcome, outcome)}")
    return 0 if outcome in RECORDED else 1


def _label_interactively(arguments: Namespace, store: "Store") -> int:
    from cli.cloud.label_session import label_photos  # noqa: PLC0415  # as above
    from cloud.labeling.label_receipts import MEANINGS  # noqa: PLC0415  # as above
    from cloud.labeling.review_queue import awaiting_review  # noqa: PLC0415  # as above

    log.configure("error")  # log lines would overwrite the photo
    labelling = label_photos(arguments, store, awaiting_review(store, arguments.limit))
    outcomes = run_service.run(labelling) or []  # None if it was interrupted
    print_line(f"{len(outcomes)} labels published")
    for outcome, count in Counter(outcomes).items():
        what = f"no collector answered within {arguments.wait:g} s" if outcome is None else MEANINGS[outcome]
        print_line(f"  {count}: {what}")
    return 0 if None not in outcomes else 75


async def _publish(arguments: Namespace, feedback: Feedback) -> str | None:
    """Publish a label and return what a collector did with it; None if none answered."""
    from cloud.labeling.label_receipts import LabelReceipts  # noqa: PLC0415  # as above

    bus = connect.bus(arguments, "review")
    echoes = bus.subscribe(FEEDBACK, node=feedback.node, device=feedback.device)
    receipts = LabelReceipts(bus)
    async with connect.connected(arguments, bus), receipts.listening():
        await publish_confirmed(bus, echoes, FEEDBACK, feedback, node=feedback.node, device=feedback.device)
        (outcome,) = await receipts.outcomes([feedback], arguments.wait)
        return outcome
