"""Build, start and stop the laboratory with pods; it runs until it is stopped."""

import argparse
import asyncio
import sys
import time

from bus.log import configure
from schemas.errors import GleanerError
from tests.pods import images, report, requirements
from tests.pods.lab import NODES, PodLab
from tests.pods.programs import PodPrograms, build, locate
from tests.pods.walk import fleet
from tests.pods.walk.walker import Walker


def main() -> int:
    """Run one command and return the exit code."""
    parser = argparse.ArgumentParser(prog="kubeedge-pods", description=__doc__)
    parser.add_argument("command", choices=("build", "start", "status", "stop"))
    parser.add_argument("--nodes", default=",".join(NODES), help="names of the edge nodes")
    parser.add_argument(
        "--overlay", choices=("single-node", "fleet"), default="single-node",
        help="fleet: by the commands of deploy/kubeedge/README.md, with the dataset on S3 and the console",
    )  # fmt: skip
    parser.add_argument("--photos", type=int, default=20, help="photos of each node's camera")
    chosen = parser.parse_args()
    configure("warning")
    if reason := requirements.missing():
        print(f"skipped: {reason}")
        return 0
    try:
        return _run(chosen)
    except GleanerError as error:
        print(error, file=sys.stderr)
        return 1


def _run(chosen: argparse.Namespace) -> int:
    lab = PodLab(locate(), nodes=tuple(chosen.nodes.split(",")), told=_Clock())
    if chosen.command in {"build", "start"}:
        lab = PodLab(_built(), nodes=tuple(chosen.nodes.split(",")), told=_Clock())
    if chosen.command == "stop":
        lab.stop()
    if chosen.command == "start":
        asyncio.run(_start(lab, chosen))
    if chosen.command == "status":
        print(asyncio.run(report.pods(lab)))
    return 0


async def _start(lab: PodLab, chosen: argparse.Namespace) -> None:
    if chosen.overlay == "single-node":
        await report.show(lab, chosen.photos)
        return
    await lab.start(bare=True)
    said = await fleet.walk(lab, Walker(lab, lab.folder / "lab/walk"))
    print(await report.pods(lab))
    print(f"photos of the first camera, with their labels: {fleet.labels(said)}")


class _Clock:
    """Prints each step with the seconds since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, step: str) -> None:
        print(f"{time.monotonic() - self._began:5.0f} s  {step}", flush=True)


def _built() -> PodPrograms:
    if missing := locate().missing():
        print(f"building {', '.join(missing)}: 15 minutes of CPU time, the first time", flush=True)
    programs = build()
    images.build()
    return programs


if __name__ == "__main__":
    sys.exit(main())
