"""Run the agent of a camera device: it takes photos, sends them and prints the answers."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from bus import config, log
from cli import options, run_service
from schemas.messages import Result

if TYPE_CHECKING:
    from device.agent import Answer


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options; each overrides the configuration file."""
    parser.add_argument("--node", type=options.name, help="edge node that answers this device (edge-1)")
    parser.add_argument("--name", type=options.name, help="name of this device at its node (pi-1)")
    parser.add_argument(
        "--camera", metavar="SPEC", help="folder:DIR[?loop=1&shuffle=SEED&part=0/3], drawn, usb:0, picamera"
    )
    parser.add_argument(
        "--interval", metavar="S", type=float, help="a photo so often (5); 0: on command alone"
    )
    parser.add_argument("--motion", metavar="X", type=float, help="instead when frames differ so much (0..1)")
    parser.add_argument("--count", metavar="N", type=options.positive(int), help="end after so many photos")
    parser.add_argument("--expires", metavar="S", type=float, help="a later answer is worth nothing")
    parser.add_argument("--state-dir", metavar="DIR", help="folder for outbox and answers")
    parser.add_argument("--json", action="store_true", help="JSON lines, even on a terminal")
    options.add_service(parser)


def run(arguments: Namespace) -> int:
    """Run until the camera is exhausted, the count is reached, or told to stop."""
    from device import service as device_service  # noqa: PLC0415  # Pillow is loaded by this command alone
    from device.config import DeviceConfig  # noqa: PLC0415  # as above

    loaded = options.settings(
        arguments,
        DeviceConfig,
        node=arguments.node,
        name=arguments.name,
        camera=arguments.camera,
        interval_s=arguments.interval,
        motion=arguments.motion,
        count=arguments.count,
        expires_s=arguments.expires,
        state_dir=arguments.state_dir or (None if arguments.config else options.default_state("device")),
    )
    log.configure(arguments.log_level, node=loaded.node, device=loaded.name)
    as_table = sys.stdout.isatty() and not arguments.json
    counters = run_service.run(
        device_service.run(loaded, _table() if as_table else _json_line, config.password())
    )
    if counters is not None and as_table:
        print(f"{counters.get('photo.accepted', 0)} photos, {counters.get('photo.answered', 0)} answers")
    return 0


def _json_line(answer: "Answer") -> None:
    fields = msgspec.to_builtins(answer.result)
    own = {"source": answer.source, "truth": answer.truth, "round_trip_ms": answer.round_trip_ms}
    sys.stdout.buffer.write(msgspec.json.encode(fields | own) + b"\n")
    sys.stdout.buffer.flush()


def _table() -> "Callable[[Answer], None]":
    print(f"{'photo':<10}{'answer':<22}{'sure':>6}{'ms':>8}  {'harvest':<16}{'from'}")

    def row(answer: "Answer") -> None:
        result = answer.result
        sure = "" if result.confidence is None else f"{result.confidence:.0%}"
        took = "" if answer.round_trip_ms is None else f"{answer.round_trip_ms:.0f}"
        print(
            f"{result.photo_id[:8]:<10}{verdict(result):<22}{sure:>6}{took:>8}  "
            f"{result.harvest or '':<16}{answer.source}"
        )

    return row


def verdict(result: Result) -> str:
    """Return the answer in a word or two."""
    if result.status == "ok":
        return result.label or "?"
    return f"{result.status}: {result.code or result.reason}"
