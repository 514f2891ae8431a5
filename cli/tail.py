"""Print the messages on the topics, decoded: one line per message, images summarised."""

import asyncio
from argparse import ArgumentParser, Namespace

import msgspec

from bus import log
from bus.mqtt.subscription import RawMessage
from cli import connect, options, run_service
from cli.output import print_line, print_raw
from schemas.codec import decode, is_image
from schemas.errors import CodecError
from schemas.image import ImageError, read_header
from schemas.text import ascii_json
from schemas.topics import ROOT, check_filter, find

_KILO = 1000


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "filter",
        nargs="?",
        default=f"{ROOT}/#",
        help=f"MQTT topic filter, also without {ROOT}/ in front (default: {ROOT}/#)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON lines with topic and message")
    parser.add_argument("--count", metavar="N", type=options.positive(int), help="exit after N messages")
    options.add_broker(parser)


def run(arguments: Namespace) -> int:
    """Print messages until a signal arrives or the count is reached."""
    log.configure("warning")
    run_service.run(_follow(arguments))
    return 0


async def _follow(arguments: Namespace) -> None:
    topic_filter = arguments.filter
    if not topic_filter.startswith((ROOT, "$", "#", "+")):
        topic_filter = f"{ROOT}/{topic_filter}"
    check_filter(topic_filter)
    bus = connect.bus(arguments, "tail")
    messages = bus.subscribe_raw(topic_filter)
    async with asyncio.TaskGroup() as tasks:
        connection = tasks.create_task(bus.run())
        printed = 0
        while arguments.count is None or printed < arguments.count:
            message = await messages.get()
            printed += 1
            if arguments.json:
                print_raw(line_json(message))  # print_line would shorten it
            else:
                print_line(line(message))
        connection.cancel()  # or the TaskGroup would wait for a connection that does not end


def line(message: RawMessage) -> str:
    """Return a message as text: topic, then the fields as JSON."""
    mark = " (retained)" if message.retained else ""
    return f"{message.topic}{mark} {msgspec.json.encode(_fields(message)).decode()}"


def line_json(message: RawMessage) -> str:
    """Return a message as one JSON object in ASCII: topic, retained, message."""
    return ascii_json({"topic": message.topic, "retained": message.retained, "message": _fields(message)})


def _fields(message: RawMessage) -> object:
    if (found := find(message.topic)) is None:
        return summary(message.payload)
    kind, names = found
    try:
        # builtin_types keeps bytes as bytes; msgspec would turn an image into base64 text.
        fields = msgspec.to_builtins(decode(kind, message.payload, names), builtin_types=(bytes,))
    except CodecError as error:
        return f"{summary(message.payload)} {error}"
    return {name: summary(value) if isinstance(value, bytes) else value for name, value in fields.items()}


def summary(payload: bytes) -> str:
    """Return a short text as it is, and other bytes as a summary such as `<102 kB jpeg 640x480>`."""
    size = f"{len(payload) / _KILO:.0f} kB" if len(payload) >= _KILO else f"{len(payload)} bytes"
    if is_image(payload):
        try:
            header = read_header(payload)
        except ImageError:
            return f"<{size} broken image>"
        return f"<{size} {header.format} {header.width}x{header.height}>"
    text = payload.decode(errors="replace")
    return text if len(payload) < _KILO and text.isprintable() else f"<{size}>"
