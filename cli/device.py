"""Run the agent of a camera device: take photos, publish them and print the results."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from bus import config, log
from cli import options, run_service
from schemas.messages import Result

if TYPE_CHECKING:
    from device.agent import PhotoResult


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options; each overrides the configuration file."""
    parser.add_argument(
        "--node", type=options.name, help="edge node that classifies the photos (default: edge-1)"
    )
    parser.add_argument("--name", type=options.name, help="name of this device at its node (default: pi-1)")
    parser.add_argument(
        "--camera",
        metavar="SPEC",
        help="folder:DIR[?loop=1&shuffle=SEED&part=0/3], usb:0, picamera, or drawn (synthetic photos, in a "
        "checkout; default: drawn)",
    )
    parser.add_argument(
        "--interval", metavar="S", type=float, help="seconds between photos; 0: only on command (default: 5)"
    )
    parser.add_argument(
        "--motion",
        metavar="X",
        type=float,
        help="take photos on motion instead: difference of frames, 0 to 1",
    )
    parser.add_argument("--count", metavar="N", type=options.positive(int), help="exit after N photos")
    parser.add_argument(
        "--expires", metavar="S", type=float, help="seconds after which the result of a photo is useless"
    )
    parser.add_argument("--state-dir", metavar="DIR", help="folder for the outbox and the results")
    parser.add_argument("--json", action="store_true", help="print JSON lines, also on a terminal")
    options.add_service(parser)


def run(arguments: Namespace) -> int:
    """Run until the camera is exhausted, the count is reached, or a signal arrives."""
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
        # Without a configuration file it is started by hand, by a user who cannot write below /var/lib.
        state_dir=arguments.state_dir or (None if arguments.config else options.default_state("device")),
    )
    log.configure(arguments.log_level, node=loaded.node, device=loaded.name)
    as_table = sys.stdout.isatty() and not arguments.json
    counters = run_service.run(
        device_service.run(loaded, _table() if as_table else _json_line, config.password())
    )
    if counters is not None and as_table:
        print(f"{counters.get('photo.accepted', 0)} photos, {counters.get('photo.answered', 0)} results")
    return 0


def _json_line(received: "PhotoResult") -> None:
    fields = msgspec.to_builtins(received.result)
    local = {"source": received.source, "truth": received.truth, "round_trip_ms": received.round_trip_ms}
    sys.stdout.buffer.write(msgspec.json.encode(fields | local) + b"\n")
    sys.stdout.buffer.flush()  # a pipe is block-buffered: its reader would get nothing for minutes


def _table() -> "Callable[[PhotoResult], None]":
    print(f"{'photo':<10}{'result':<22}{'conf.':>6}{'ms':>8}  {'harvest':<16}{'source'}")

    def row(received: "PhotoResult") -> None:
        result = received.result
        confidence = "" if result.confidence is None else f"{result.confidence:.0%}"
        round_trip = "" if received.round_trip_ms is None else f"{received.round_trip_ms:.0f}"
        print(
            f"{result.photo_id[:8]:<10}{result_text(result):<22}{confidence:>6}{round_trip:>8}  "
            f"{result.harvest or '':<16}{received.source}"
        )

    return row


def result_text(result: Result) -> str:
    """Return the label, or the status with its reason."""
    if result.status == "ok":
        return result.label or "?"
    return f"{result.status}: {result.code or result.reason}"
