"""Collectors on one table and on a table each: samples per second, CPU, and commits that lost a race.

    python -m bench.collectors --collectors 1 2 4 8
    python -m bench.collectors --collectors 1 2 4 8 --s3-program PATH/TO/versitygw

A table each stands for a table per group of nodes: a broker, collectors and its own dataset. On an
object store, a commit that lost is a refused conditional write of a manifest: 412 in the server's access log.
"""

import argparse
import asyncio
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench import procfs
from bench.collector import collecting
from bench.load import closed_loop
from bench.photos import pictures
from bus.broker.process import free_port, is_listening
from schemas.errors import PermanentError

_AT_ONCE = 256
_WARMUP_S = 2.0
_POLL_S = 0.02
_LOST = re.compile(r" s3_PutObject \S*_versions/\S+ \S+ 412 ")
_KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench-secret"}


@contextlib.contextmanager
def _object_store(program: Path, folder: Path) -> Iterator[Path]:
    """Run an S3 server and set the environment of clients; yields its access log."""
    (folder / "bucket").mkdir(parents=True)
    port, log = free_port(), folder.with_suffix(".log")
    command = [
        str(program),
        "--port",
        f"127.0.0.1:{port}",
        "--quiet",
        "--access-log",
        str(log),
        "posix",
        str(folder),
    ]
    keys = {"ROOT_ACCESS_KEY": _KEYS["AWS_ACCESS_KEY_ID"], "ROOT_SECRET_KEY": _KEYS["AWS_SECRET_ACCESS_KEY"]}
    with subprocess.Popen(command, env=os.environ | keys, stdout=subprocess.DEVNULL) as server:  # noqa: S603  # named by the caller
        try:
            while not is_listening(port):
                if server.poll() is not None:
                    raise PermanentError(f"{program} did not start: exit code {server.returncode}")
                time.sleep(_POLL_S)
            os.environ.update(
                _KEYS,
                AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}",
                AWS_DEFAULT_REGION="us-east-1",
                AWS_ALLOW_HTTP="true",
            )
            yield log
        finally:
            server.kill()


async def _measure(folder: Path, datasets: list[str], seconds: float, log: Path | None) -> str:
    async with collecting(folder, datasets) as (requests, pids):
        photos, used = pictures(64), list[float]()
        lost_before = _lost(log)
        loads = [
            closed_loop(
                request,
                photos,
                at_once=_AT_ONCE // len(requests),
                seconds=seconds,
                warmup_s=_WARMUP_S,
                watch=(lambda: used.append(sum(map(procfs.cpu_s, pids)))) if not number else (lambda: None),
            )
            for number, request in enumerate(requests)
        ]
        outcomes = await asyncio.gather(*loads)
    stored = sum(len(outcome.latencies_s) for outcome in outcomes)
    per_s, cpu_ms = sum(outcome.per_s for outcome in outcomes), 1000 * (used[1] - used[0]) / max(1, stored)
    lost = "" if log is None else f", {_lost(log) - lost_before} commits lost a race"
    return f"{per_s:.0f} samples/s, {cpu_ms:.2f} CPU-ms per sample{lost}"


def _lost(log: Path | None) -> int:
    if log is None or not log.exists():
        return 0
    return len(_LOST.findall(log.read_text(errors="replace")))


async def _measure_all(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as running:
        folder, log = Path(name), None
        if arguments.s3_program is not None:
            log = running.enter_context(_object_store(arguments.s3_program, folder / "s3"))
        for count in arguments.collectors:
            for tables in sorted({1, count}):
                here = folder / f"{count}-{tables}"
                here.mkdir()
                where = f"s3://bucket/{count}-{tables}" if log is not None else str(here)
                datasets = [f"{where}-{table % tables}.lance" for table in range(count)]
                line = await _measure(here, sorted(datasets), arguments.seconds, log)
                sys.stdout.write(f"{count} collectors, {tables} tables: {line}\n")
                sys.stdout.flush()


def main() -> None:
    """Measure, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--collectors", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--s3-program", type=Path)
    asyncio.run(_measure_all(parser.parse_args()))


if __name__ == "__main__":
    main()
