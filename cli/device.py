"""Run the agent of a camera device: take photos, publish them and print the results."""

import asyncio
import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import structlog
from msgspec import structs

from bus import config, log
from cli import options, run_service
from cli.output import OutputError, print_json, print_line
from schemas.errors import PermanentError
from schemas.messages import Result

if TYPE_CHECKING:
    from device.agent import PhotoResult


_DISCOVERY_S = 20.0

events = structlog.get_logger()


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options; each overrides the configuration file."""
    parser.add_argument(
        "--node", type=options.node, help="edge node that classifies the photos (default: edge-1)"
    )
    parser.add_argument("--name", type=options.device, help="name of this device at its node (default: pi-1)")
    parser.add_argument(
        "--camera",
        metavar="SPEC",
        help="folder:DIR[?loop=1&shuffle=SEED&part=0/3], usb:0, picamera, http://HOST/PATH (picture, MJPEG), "
        "rtsp://HOST/PATH, mqtt:TOPIC, or drawn (synthetic photos, in a checkout; default: drawn)",
    )
    parser.add_argument(
        "--size",
        metavar="WxH",
        type=_size,
        help="pixels asked of usb: and picamera; larger photos are reduced (default: if no edge takes them)",
    )
    parser.add_argument(
        "--quality", metavar="Q", type=int, help="JPEG quality of photos encoded here, 1 to 100 (default: 85)"
    )
    parser.add_argument(
        "--crop",
        metavar="L,T,R,B",
        type=_crop,
        help="send this part of each picture: left, top, right, bottom edge as shares, such as 0.25,0,0.75,1",
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
    parser.add_argument(
        "--motion-pause", metavar="S", type=float, help="with --motion, least seconds between two photos (0)"
    )
    parser.add_argument(
        "--heartbeat",
        metavar="S",
        type=float,
        help="with --motion, seconds after which a photo is sent without any (0: never)",
    )
    parser.add_argument("--count", metavar="N", type=options.positive(int), help="exit after N photos")
    parser.add_argument(
        "--expires", metavar="S", type=float, help="seconds after which the result of a photo is useless"
    )
    parser.add_argument(
        "--discover",
        action="store_true",
        help="find the node's broker in the local network by mDNS, as 'gleaner up' announces it; needs --ca",
    )
    options.add_state(parser, "device", "the outbox and the results")
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
        size=arguments.size,
        quality=arguments.quality,
        crop=arguments.crop,
        interval_s=arguments.interval,
        motion=arguments.motion,
        motion_pause_s=arguments.motion_pause,
        heartbeat_s=arguments.heartbeat,
        count=arguments.count,
        expires_s=arguments.expires,
        # Without a configuration file it is started manually, by a user who cannot write below /var/lib.
        state_dir=arguments.state_dir or (None if arguments.config else options.default_state("device")),
    )
    if arguments.discover:
        loaded = structs.replace(loaded, broker=_discovered(loaded.node, loaded.broker))
    log.configure(arguments.log_level, node=loaded.node, device=loaded.name)
    as_table = sys.stdout.isatty() and not arguments.json
    on_result = _printing(_table() if as_table else _json_line)
    counters = run_service.serve(
        "device", loaded, device_service.run(loaded, on_result, config.password(loaded.broker))
    )
    if counters is not None and as_table:
        print_line(f"{counters.get('photo.accepted', 0)} photos, {counters.get('photo.answered', 0)} results")
    return 0


def _discovered(node: str, broker: config.Broker) -> config.Broker:
    """Return the broker that is announced in the local network for a node.

    Raises:
        PermanentError: The connection would not be encrypted: anyone in the network could announce a broker.
        TransientError: None is announced.
    """
    if broker.tls is None:
        raise PermanentError(
            "--discover needs TLS, since anyone in the network can announce a broker",
            hint="name the site's CA with --ca, and this device's certificate with --cert and --key",
        )
    from bus.broker.discovery import find_broker  # noqa: PLC0415  # of an extra

    found = asyncio.run(find_broker(node, _DISCOVERY_S))
    return structs.replace(broker, host=found.host, port=found.port)


def _size(value: str) -> str:
    if re.fullmatch(r"[1-9][0-9]{1,4}x[1-9][0-9]{1,4}", value) is None:
        raise ArgumentTypeError(f"expected WIDTHxHEIGHT, such as 1280x960, got {value!r}")
    return value


def _crop(value: str) -> tuple[float, ...]:
    edges = tuple(options.share(part) for part in value.split(","))
    if len(edges) != 4:  # noqa: PLR2004  # left, top, right, bottom
        raise ArgumentTypeError(f"expected four numbers L,T,R,B, such as 0.25,0,0.75,1, got {value!r}")
    return edges


def _printing(show: "Callable[[PhotoResult], None]") -> "Callable[[PhotoResult], None]":
    """Return a function that prints a result, and ignores that it cannot, as on a full disk."""
    failed = False

    def shown(received: "PhotoResult") -> None:
        nonlocal failed
        try:
            show(received)
        except OutputError as error:
            level = events.debug if failed else events.warning
            level("result.not_printed", photo_id=received.result.photo_id, reason=str(error))
            failed = True
        else:
            failed = False

    return shown


def _json_line(received: "PhotoResult") -> None:
    fields = msgspec.to_builtins(received.result)
    local = {"source": received.source, "truth": received.truth, "round_trip_ms": received.round_trip_ms}
    print_json(fields | local)


def _table() -> "Callable[[PhotoResult], None]":
    print_line(f"{'photo':<10}{'result':<22}{'conf.':>6}{'ms':>8}  {'harvest':<16}{'source'}")

    def row(received: "PhotoResult") -> None:
        result = received.result
        confidence = "" if result.confidence is None else f"{result.confidence:.0%}"
        round_trip = "" if received.round_trip_ms is None else f"{received.round_trip_ms:.0f}"
        print_line(
            f"{result.photo_id[:8]:<10}{result_text(result):<22}{confidence:>6}{round_trip:>8}  "
            f"{result.harvest or '':<16}{received.source}"
        )

    return row


def result_text(result: Result) -> str:
    """Return the label, or the status with its reason."""
    if result.status == "ok":
        return result.label or "?"
    return f"{result.status}: {result.code or result.reason}"
