"""Long run with faults: `python -m tests.faults.soak --minutes 20 --seed 1`.

Prints progress and a table, writes the table as JSON, and exits with 1 if anything is lost, duplicated,
stored with another picture, accepted before it was on the disk or recovers too late; or if nothing was
tested.
"""

import asyncio
import json
import shutil
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from contextlib import suppress
from math import ceil
from pathlib import Path
from statistics import median

from bus import log
from tests.faults.laboratory import ComponentDiedError, Laboratory
from tests.faults.ledger import Ledger
from tests.faults.preload import compiler
from tests.faults.schedule import ALL_STREAMS, faults
from tests.faults.stack import stack
from tests.faults.variants import VARIANTS

_PROGRESS_S = 15.0


async def soak(arguments: Namespace, folder: Path) -> dict[str, object]:
    """Run the laboratory and return its results."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)

    async with (
        stack(folder, interval_s=arguments.interval, variant=arguments.variant) as running,
        Laboratory(running).listening() as laboratory,
        asyncio.TaskGroup() as tasks,
    ):
        progress = tasks.create_task(_print_progress(laboratory, say))
        with suppress(TimeoutError):
            async with asyncio.timeout(arguments.minutes * 60), asyncio.TaskGroup() as streams:
                for stream in arguments.streams:
                    drawn = faults(arguments.seed, stream, arguments.pause)
                    streams.create_task(laboratory.inject(drawn))
        progress.cancel()
        say("removing all faults, waiting until everything is answered and stored")
        ledger = await laboratory.settle()
        return facts(laboratory, ledger, seed=arguments.seed, took_s=round(time.monotonic() - began))


async def _print_progress(laboratory: Laboratory, say) -> None:
    while True:
        counts = laboratory.report.faults, laboratory.stack.answered.count, laboratory.receipts.count
        say("{} faults, {} answers, {} receipts".format(*counts))
        await asyncio.sleep(_PROGRESS_S)


def facts(laboratory: Laboratory, ledger: Ledger, *, seed: int, took_s: int) -> dict[str, object]:
    """Return the results of a run as values for JSON."""
    report = laboratory.report
    kinds: Counter[str] = Counter()
    for (_, kind), times in report.recoveries.items():
        kinds[kind] += len(times)
    return {
        "seed": seed,
        "took_s": took_s,
        "faults": report.faults,
        "faults by kind": dict(kinds.most_common()),
        "photos": ledger.photos,
        "photos lost": ledger.photos_lost,
        "photos doubled": ledger.photos_doubled,
        "samples": ledger.samples,
        "samples lost": ledger.samples_lost,
        "samples doubled": ledger.samples_doubled,
        "rows without a sample": ledger.rows_unsent,
        "photos sent again": laboratory.counted("photo.resent"),
        "samples sent again": laboratory.counted("sample.resent"),
        "duplicates absorbed": {
            "photos": laboratory.counted("photo.redelivered", "photo.answered_before"),
            "results": laboratory.counted("photo.answered_again"),
            "samples": laboratory.counted("sample.duplicate"),
            "receipts": laboratory.counted("sample.answered_again"),
        },
        "recovery, s": {
            f"{target}: {kind}": {
                "faults": len(times),
                "median": round(median(times), 2),
                "longest": round(max(times), 2),
            }
            for (target, kind), times in sorted(report.recoveries.items())
        },
        "hostile messages": report.hostile_messages,
        "calm devices, ms": round_trips(laboratory),
        "verdict": ledger.verdict + laboratory.stack.deaths() + [f"overdue: {one}" for one in report.overdue],
    }


def round_trips(laboratory: Laboratory) -> dict[str, dict[str, float]]:
    """Return how long the devices waited for answers, while hostile devices sent and at other times."""
    sent: dict[str, list[float]] = {"with hostile devices": [], "without": []}
    for device in laboratory.stack.devices:
        for line, at in zip(device.lines, device.printed_at, strict=True):
            if line.round_trip_ms is not None:  # not known for photos of before a restart
                beside = any(began <= at <= ended for began, ended in laboratory.report.hostile)
                sent["with hostile devices" if beside else "without"].append(line.round_trip_ms)
    return {
        name: {"photos": len(times), "median": round(median(times), 1), "p99": round(percentile(times), 1)}
        for name, times in sent.items()
        if times
    }


def percentile(times: list[float], share: float = 0.99) -> float:
    """Return the smallest value that at least this share of the values does not exceed."""
    return sorted(times)[ceil(share * len(times)) - 1]


def table(found: dict[str, object]) -> list[str]:
    """Return the results as lines of text."""
    lines = []
    for name, value in found.items():
        if not isinstance(value, dict):
            lines.append(f"{name:<32}{value if value or value == 0 else 'none'}")
            continue
        lines.append(name)
        for key, inner in value.items():
            text = (
                ", ".join(f"{what} {much}" for what, much in inner.items())
                if isinstance(inner, dict)
                else inner
            )
            lines.append(f"  {key:<30}{text}")
    return lines


def main() -> int:
    """Parse the options and run; the folder with the logs is kept if the run failed."""
    parser = ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--variant", choices=VARIANTS, help="break a rule of the product")
    parser.add_argument(
        "--streams", nargs="+", choices=ALL_STREAMS, default=list(ALL_STREAMS), help="only these streams"
    )
    parser.add_argument("--pause", type=float, default=3.0, metavar="S", help="mean pause between faults (3)")
    parser.add_argument(
        "--interval", type=float, default=0.1, metavar="S", help="between a device's photos (0.1)"
    )
    parser.add_argument("--out", type=Path, default=Path("soak-out"), metavar="DIR")
    arguments = parser.parse_args()
    if compiler() is None:
        arguments.streams = [stream for stream in arguments.streams if stream not in {"disk", "clock"}]
        print("no C compiler: without faults of disks and clocks", file=sys.stderr)
    log.configure("error")
    folder = Path(tempfile.mkdtemp(prefix="gleaner-soak-"))
    verdict: object = "not finished"
    try:
        found = asyncio.run(soak(arguments, folder / "stack"))
        verdict = found["verdict"]
        arguments.out.mkdir(parents=True, exist_ok=True)
        path = arguments.out / f"{arguments.variant or 'product'}-{arguments.seed}.json"
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        print("\n".join(table(found)), path, sep="\n")
    except* ComponentDiedError as died:
        print(died.exceptions[0], file=sys.stderr)
    finally:
        if verdict:
            print(f"kept: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder)
    return 1 if verdict else 0


if __name__ == "__main__":
    sys.exit(main())
