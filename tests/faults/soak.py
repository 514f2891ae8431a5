"""The long run: `python -m tests.faults.soak --minutes 20 --seed 1`.

Prints progress and a table, writes both to a folder, and ends with 1 if anything is lost or doubled.
"""

import asyncio
import json
import shutil
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from pathlib import Path
from statistics import median

from bus import log
from tests.faults.laboratory import Laboratory
from tests.faults.ledger import Ledger
from tests.faults.schedule import STREAMS, faults
from tests.faults.stack import stack
from tests.faults.variants import VARIANTS
from tests.serving import saved_models

_PROGRESS_S = 15.0


async def soak(arguments: Namespace, folder: Path) -> int:
    """Run the laboratory and return the exit code."""
    began = time.monotonic()
    async with (
        stack(folder, interval_s=arguments.interval, variant=arguments.variant) as running,
        Laboratory(running).listening() as laboratory,
    ):
        streams = [
            asyncio.create_task(_hurt(laboratory, stream, arguments)) for stream in arguments.streams
        ]
        until = began + arguments.minutes * 60
        while (left_s := until - time.monotonic()) > 0 and not any(stream.done() for stream in streams):
            _say(began, f"{laboratory.report.faults} faults, {running.answered.count} answers, {laboratory.receipts.count} receipts")
            await asyncio.wait(streams, timeout=min(_PROGRESS_S, left_s), return_when=asyncio.FIRST_COMPLETED)
        for stream in streams:
            stream.cancel()
        outcomes = await asyncio.gather(*streams, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        _say(began, "healing everything, waiting until all is answered")
        await laboratory.drain()
        ledger = await laboratory.reckon()
        _say(began, "done")
        found = facts(arguments, laboratory, ledger, time.monotonic() - began)
        arguments.out.mkdir(parents=True, exist_ok=True)
        path = arguments.out / f"soak-{arguments.variant or 'product'}-seed-{arguments.seed}.json"
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        print("\n".join(table(found)))
        print(path)
        return 1 if found["verdict"] else 0


async def _hurt(laboratory: Laboratory, stream: str, arguments: Namespace) -> None:
    for fault in faults(arguments.seed, stream, arguments.pause):
        await laboratory.inflict(fault)


def _say(began: float, text: str) -> None:
    print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)


def facts(arguments: Namespace, laboratory: Laboratory, ledger: Ledger, took_s: float) -> dict[str, object]:
    """Return what the run found, as values for JSON."""
    report = laboratory.report
    kinds: Counter[str] = Counter()
    for (_, kind), times in report.recoveries.items():
        kinds[kind] += len(times)
    return {
        "seed": arguments.seed,
        "variant": arguments.variant,
        "took_s": round(took_s),
        "faults": report.faults,
        "faults_by_kind": dict(kinds.most_common()),
        "photos": ledger.photos,
        "photos_lost": ledger.photos_lost,
        "photos_doubled": ledger.photos_doubled,
        "samples": ledger.samples,
        "samples_lost": ledger.samples_lost,
        "samples_doubled": ledger.samples_doubled,
        "rows_nobody_sent": ledger.rows_nobody_sent,
        "photos_resent": laboratory.counted("photo.resent"),
        "samples_resent": laboratory.counted("sample.resent"),
        "photo_duplicates_absorbed": laboratory.counted("photo.came_again", "photo.answered_before"),
        "answer_duplicates_absorbed": laboratory.counted("photo.answered_again"),
        "sample_duplicates_absorbed": laboratory.counted("sample.duplicate"),
        "receipt_duplicates_absorbed": laboratory.counted("sample.answered_again"),
        "overdue": [str(fault) for fault in report.overdue],
        "recovery_s": {
            f"{target} {kind}": {
                "count": len(times),
                "median": round(median(times), 2),
                "longest": round(max(times), 2),
            }
            for (target, kind), times in sorted(report.recoveries.items())
        },
        "verdict": ledger.verdict + laboratory.stack.deaths(),
    }


def table(found: dict[str, object]) -> list[str]:
    """Return the same as lines to read."""
    lines = []
    for name, value in found.items():
        if isinstance(value, dict):
            lines.append(name)
            lines += [f"  {key:<28}{_text(inner)}" for key, inner in value.items()]
        else:
            lines.append(f"{name:<30}{value if value or value == 0 else 'none'}")
    return lines


def _text(value: object) -> str:
    return "  ".join(f"{key} {number}" for key, number in value.items()) if isinstance(value, dict) else str(value)


def main() -> int:
    """Read the options, run, and keep the folder if the run failed."""
    parser = ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--variant", choices=VARIANTS, help="break a rule of the product")
    parser.add_argument("--streams", nargs="+", choices=STREAMS, default=list(STREAMS), help="hurt these alone")
    parser.add_argument("--pause", type=float, default=3.0, metavar="S", help="mean pause between faults")
    parser.add_argument("--interval", type=float, default=0.1, metavar="S", help="between photos of a device")
    parser.add_argument("--out", type=Path, default=Path("soak-out"), metavar="DIR")
    arguments = parser.parse_args()
    log.configure("error")
    folder = Path(tempfile.mkdtemp(prefix="gleaner-soak-"))
    code = 2
    try:
        code = asyncio.run(soak(arguments, folder))
    finally:
        shutil.rmtree(saved_models())
        if code == 0:
            shutil.rmtree(folder)
        else:
            print(f"kept: {folder}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
