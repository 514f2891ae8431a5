"""Run mosquitto: a local one for experiments, or with `--config` one of `gleaner provision`.

Without `--config` it has no authentication and listens on loopback only; `gleaner up` runs a whole system for
other machines, with certificates. With it, mosquitto is restarted
within seconds whenever one of its files changes, such as the access list or the revoked certificates. Uses an
installed mosquitto, otherwise downloads Debian's package into the user's cache; needs no root.
"""

import signal
import sys
import threading
from argparse import ArgumentParser, Namespace
from pathlib import Path

from bus import log
from bus.broker.locate import find_mosquitto, is_installed
from bus.broker.process import is_listening, local_broker
from bus.broker.watched import run_watched
from cli import broker_address, exit_codes, options
from cli.output import print_error, print_line
from schemas.errors import PermanentError

_MQTT_PORT = 1883


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--port", type=broker_address.port, default=_MQTT_PORT, help="TCP port on 127.0.0.1 (1883)"
    )
    parser.add_argument("--dir", type=Path, help="folder for configuration, log and persistence")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="mosquitto.conf of 'gleaner provision', in place of these"
    )


def run(arguments: Namespace) -> int:
    """Run until SIGTERM or Ctrl-C."""
    if arguments.config is not None:
        stop = threading.Event()
        received: list[int] = []

        def end(number: int, _frame: object) -> None:
            received.append(number)
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        log.configure("info")
        run_watched(arguments.config, find_mosquitto(), stop)
        return exit_codes.INTERRUPTED if received[:1] == [signal.SIGINT] else exit_codes.OK
    if is_listening(arguments.port):
        raise PermanentError(
            f"cannot start a broker on port {arguments.port}: it is in use", hint="choose another with --port"
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(exit_codes.OK))
    if not is_installed():
        print_error("downloading mosquitto from Debian's archive …")
    folder = arguments.dir or Path(options.default_state("broker"))
    with local_broker(folder, port=arguments.port) as broker:
        print_line(f"mosquitto listens on 127.0.0.1:{broker.port}, log in {folder}/mosquitto.log")
        return broker.wait()
