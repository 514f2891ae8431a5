"""Run benchmarks: `python -m bench [NAME …]` writes a JSON report for each; `bench.render` shows them."""

import argparse
import asyncio
import importlib
import sys
import tempfile
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path

from bench import machine, report
from bench.figures import Figure
from bench.measurements import MEASUREMENTS
from bench.setting import Measure, Setting
from bus import log


def run(name: str, setting: Setting) -> report.Report:
    """Run one measurement; if it fails, the report has the error."""
    chosen = MEASUREMENTS[name]
    facts, began_at, started_at = machine.facts(), datetime.now(UTC), time.monotonic()
    figures, failed = [], None
    try:
        measure: Measure = importlib.import_module(chosen.module).measure
        figures = asyncio.run(_awaited(measure, setting))
    except Exception as error:  # noqa: BLE001  # the other measurements still run
        traceback.print_exc()
        failed = f"{type(error).__name__}: {error}"
    return report.Report(
        measurement=name,
        title=chosen.title,
        commit=machine.commit(),
        machine=facts,
        quick=setting.quick,
        began_at=began_at.isoformat(timespec="seconds"),
        took_s=round(time.monotonic() - started_at, 1),
        figures=figures,
        notes=setting.notes,
        failed=failed,
    )


async def _awaited(measure: Measure, setting: Setting) -> list[Figure]:
    return await measure(setting)


def main() -> int:
    """Run the requested measurements one after the other."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    default = [name for name, chosen in MEASUREMENTS.items() if chosen.weight]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASUREMENTS)} ({default})")
    parser.add_argument(
        "--out", type=Path, default=Path("bench-out"), help="folder of the reports (default: bench-out)"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=25.0,
        help="minutes for all default measurements, without one-time preparation (default: 25)",
    )
    parser.add_argument("--quick", action="store_true", help="only check that everything works")
    arguments = parser.parse_args()
    names = arguments.names or default
    if unknown := [name for name in names if name not in MEASUREMENTS]:
        parser.error(f"unknown measurements: {', '.join(unknown)}")
    log.configure("error")
    arguments.out.mkdir(parents=True, exist_ok=True)
    share_s = 60 * arguments.minutes / sum(MEASUREMENTS[name].weight for name in default)
    failed = False
    for name in names:
        with tempfile.TemporaryDirectory(prefix=f"gleaner-bench-{name}-") as folder:
            seconds = share_s * (MEASUREMENTS[name].weight or 1)
            made = run(name, Setting(Path(folder), arguments.out, seconds, arguments.quick))
        path = report.write(made, arguments.out)
        print(
            f"{name}: {made.failed or 'done'} in {made.took_s:.0f} s, in {path}", file=sys.stderr, flush=True
        )
        failed = failed or made.failed is not None
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
