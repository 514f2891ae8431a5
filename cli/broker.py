"""Run a local mosquitto for experiments: without authentication, on loopback only.

Uses an installed mosquitto, otherwise downloads Debian's package into the user's cache; needs no root.
"""

import signal
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from bus.broker.process import local_broker
from cli import options

_MQTT_PORT = 1883


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--port", type=options.port, default=_MQTT_PORT, help="TCP port on 127.0.0.1 (1883)")
    parser.add_argument("--dir", type=Path, help="folder for configuration, log and persistence")


def run(arguments: Namespace) -> int:
    """Run until SIGTERM or Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    folder = arguments.dir or Path(options.default_state("broker"))
    with local_broker(folder, port=arguments.port) as broker:
        print(f"mosquitto listens on 127.0.0.1:{broker.port}, log in {folder}/mosquitto.log", flush=True)
        return broker.wait()
