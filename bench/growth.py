"""Cost over size: of a photo by number of devices, and of a sample by rows of the table.

    python -m bench.growth --devices 100 1000 10000 --rows 10000 100000 1000000

Devices are connections of this process, each with a session of its own, to one handler with a model that does
nothing; together they send 60 photos per second. Rows have small images. CPU is of the process alone, so
another job on the machine changes the rate and hardly the cost.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from bench import collector, fleet
from bench.setting import Setting
from bench.table import Table
from bus import log


async def _by_devices(folder: Path, devices: int, seconds: float) -> None:
    table, began = Table(), time.perf_counter()
    setting = Setting(folder=folder, out=folder, seconds=seconds, quick=True)
    await fleet.FleetRun(setting, devices, (1,), seconds, 0, table, saturated=False).run()

    def value(what: str, of: str) -> float:
        return table.values[fleet.named(what, devices, 1), of][-1]

    print(
        f"{devices} devices: {value(fleet.COST, 'handlers'):.2f} CPU-ms of the handler per photo, "
        f"{value(fleet.COST, 'broker'):.2f} of the broker, {value(fleet.MEMORY, fleet.OURS):.0f} MB, "
        f"{value(fleet.LOST, fleet.OURS):.0f} unanswered; {time.perf_counter() - began:.0f} s",
        flush=True,
    )


async def _by_rows(folder: Path, rows: int, seconds: float) -> None:
    table, began = Table(), time.perf_counter()
    await collector.by_rows(folder, rows, seconds, 1, table)
    of = f"{rows} rows"
    (per_s,) = table.values[f"samples/s of small images at {rows} rows", "Gleaner"]
    (cost,), (memory,) = table.values[collector.COST_OF_SMALL, of], table.values[collector.MEMORY, of]
    print(
        f"{rows} rows: {cost:.2f} CPU-ms of the collector per sample, {per_s:.0f} samples/s, "
        f"{memory:.0f} MB; {time.perf_counter() - began:.0f} s",
        flush=True,
    )


def main() -> None:
    """Measure, and print a line each."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--devices", type=int, nargs="*", default=[100, 1000, 10_000])
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    arguments = parser.parse_args()
    log.configure("error")
    with tempfile.TemporaryDirectory(prefix="gleaner-growth-") as name:
        for devices in arguments.devices:
            asyncio.run(_by_devices(Path(name) / f"devices-{devices}", devices, arguments.seconds))
        for rows in arguments.rows:
            asyncio.run(_by_rows(Path(name) / f"rows-{rows}", rows, arguments.seconds))


if __name__ == "__main__":
    main()
