"""Build, start and stop the laboratory; it runs until it is stopped."""

import argparse
import asyncio
import sys
import time
from pathlib import Path

from bus.log import configure
from schemas.errors import GleanerError
from tests.kubeedge.lab import NODES, Lab
from tests.kubeedge.programs import Programs, build, locate
from tests.kubeedge.service import end, memory_bytes, running
from tests.kubeedge.settings import BrokerConnection

FOLDER = Path(".cache/kubeedge-lab")


def main() -> int:
    """Run one command and return the exit code."""
    parser = argparse.ArgumentParser(prog="kubeedge-lab", description=__doc__)
    parser.add_argument("command", choices=("build", "start", "status", "stop"))
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder of all its files")
    parser.add_argument("--nodes", default=",".join(NODES), help="names of the edge nodes")
    parser.add_argument("--transport", choices=("websocket", "quic"), default="websocket")
    chosen = parser.parse_args()
    configure("warning")
    try:
        if chosen.command in {"build", "start"}:
            programs = _built()
        if chosen.command in {"stop", "start"}:
            _stop(chosen.folder)
        if chosen.command == "start":
            nodes = tuple(chosen.nodes.split(","))
            link = BrokerConnection(transport=chosen.transport)
            asyncio.run(_start(Lab(chosen.folder, programs, nodes=nodes, link=link)))
        if chosen.command in {"status", "start"}:
            _status(chosen.folder)
    except GleanerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _built() -> Programs:
    if missing := locate().missing():
        print(f"building {', '.join(missing)}: ten minutes of CPU time, the first time", flush=True)
    began = time.monotonic()
    programs = build()
    print(f"programs in {programs.folder}, {time.monotonic() - began:.0f} s")
    return programs


async def _start(lab: Lab) -> None:
    began = time.monotonic()
    try:
        await lab.start()
    except BaseException:
        lab.stop()
        raise
    print(f"up in {time.monotonic() - began:.0f} s")
    print(f"kubectl   kubectl --kubeconfig {lab.folder / 'kubeconfig'} get nodes")
    print(f"router    {lab.route('NODE', 'NAMESPACE', '/PATH')}")
    for node in lab.nodes.values():
        print(f"{node.name:<9} mosquitto on 127.0.0.1:{node.port}")


def _status(folder: Path) -> None:
    for pid_file in sorted(folder.glob("*.pid")):
        pid = running(pid_file)
        state = f"pid {pid:<8} {memory_bytes(pid) / 1e6:4.0f} MB" if pid else "not running"
        print(f"{pid_file.stem:<18} {state}")


def _stop(folder: Path) -> None:
    for pid_file in sorted(folder.glob("*.pid"), key=lambda file: file.stat().st_mtime, reverse=True):
        if end(pid_file):
            print(f"stopped {pid_file.stem}")


if __name__ == "__main__":
    sys.exit(main())
