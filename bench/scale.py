"""Repeat what docs/scaling.md says about sizes beyond one machine: each part with its command and its time.

    make bench-scale                                  # all parts that this machine can run
    python -m bench.scale --quick failover growth     # whether they work, small
    python -m bench.scale --s3-program PATH/TO/versitygw --broker-node "2883 a/bin/artemis run" …

The output of each part follows its command, then how long it took. A part without its program (Ray, an S3
server) is left out, and said to be. A part that takes longer than its limit is ended; the limits together are
less than an hour. On a machine with other jobs, only CPU per photo or sample can be compared.
"""

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from shlex import join


@dataclass(frozen=True, slots=True)
class Part:
    """A command of `bench`.

    Attributes:
        limit_s: it is ended after that.
        words: the module and its options.
        quick: the same, small.
        needs: a module that has to be installed.
    """

    limit_s: int
    words: tuple[str, ...]
    quick: tuple[str, ...]
    needs: str | None = None


_TINY = ("--side", "64", "--backbone", "tests.cloud.tiny:TINY")
PARTS = {
    "growth": Part(
        600, ("bench.growth",), ("bench.growth", "--devices", "100", "--rows", "1000", "--seconds", "2")
    ),
    "collectors": Part(
        300,
        ("bench.collectors", "--collectors", "1", "2", "4", "8"),
        ("bench.collectors", "--collectors", "1", "--seconds", "2"),
    ),
    "failover": Part(
        420,
        ("bench.failover", "--gateway", "--console", "--kills", "3", "--every-s", "10"),
        ("bench.failover", "--gateway", "--console", "--kills", "0", "--per-s", "60", "--seconds", "5"),
    ),
    "ray": Part(
        600,
        ("bench.ray_embedding", "--nodes", "3", "--kill", "--photos", "20000", *_TINY),
        ("bench.ray_embedding", "--nodes", "2", "--photos", "512", *_TINY),
        needs="ray",
    ),
    "mirror": Part(
        180,
        ("bench.site_mirror", "--edges", "300"),
        ("bench.site_mirror", "--edges", "5", "--megabytes", "1"),
    ),
    "rollout": Part(
        900,
        ("bench.rollouts", "--edges", "1000", "--groups", "5"),
        ("bench.rollouts", "--edges", "10", "--groups", "1"),
    ),
}
S3 = Part(300, ("bench.collectors", "--collectors", "1", "2", "4"), ("bench.collectors", "--collectors", "1"))
"""With the server of `--s3-program`."""


def chosen(names: Sequence[str], s3_program: str | None, broker_nodes: Sequence[str]) -> dict[str, Part]:
    """Return the parts to run, with what was given for them.

    Args:
        names: Of parts; empty for all.
        s3_program: Path of versitygw; None without.
        broker_nodes: Of the broker whose nodes are killed; empty for one mosquitto, which is not killed.
    """
    parts = {name: part for name, part in PARTS.items() if not names or name in names}
    if s3_program is not None and (not names or "s3" in names):
        words = ("--s3-program", s3_program)
        parts["s3"] = Part(S3.limit_s, (*S3.words, *words), (*S3.quick, *words))
    if "failover" in parts and broker_nodes:
        nodes = tuple(word for node in broker_nodes for word in ("--broker-node", node))
        part = parts["failover"]
        parts["failover"] = Part(part.limit_s, (*part.words, *nodes), (*part.quick, *nodes))
    return parts


def _run(words: Sequence[str], limit_s: int) -> bool:
    """Run a part, and return whether it ended well in time."""
    process = subprocess.Popen(  # noqa: S603  # one of our commands
        [sys.executable, "-m", *words],
        start_new_session=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "RAY_USAGE_STATS_ENABLED": "0"},
    )
    try:
        return process.wait(limit_s) == 0
    except subprocess.TimeoutExpired:
        print(f"ended after {limit_s} s", flush=True)
        os.killpg(process.pid, signal.SIGINT)
        process.wait()
        return False


def main() -> int:
    """Run the parts one after the other; return 1 if one failed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PARTS)}, s3 (all)")
    parser.add_argument("--quick", action="store_true", help="only check that everything works")
    parser.add_argument("--s3-program", metavar="PATH", help="versitygw, for the part s3")
    parser.add_argument("--broker-node", action="append", default=[], metavar="'PORT COMMAND'")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in {*PARTS, "s3"}]:
        parser.error(f"unknown parts: {', '.join(unknown)}")
    parts = chosen(arguments.names, arguments.s3_program, arguments.broker_node)
    took, failed = {}, []
    for name, part in parts.items():
        words = part.quick if arguments.quick else part.words
        print(f"\n## {name}\n\n    python -m {join(words)}\n", flush=True)
        if part.needs is not None and importlib.util.find_spec(part.needs) is None:
            print(f"left out: {part.needs} is not installed", flush=True)
            continue
        began = time.monotonic()
        if not _run(words, part.limit_s):
            failed.append(name)
        took[name] = time.monotonic() - began
        print(f"took {took[name]:.0f} s", flush=True)
    each = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in took.items())
    print(f"\n{each}; together {sum(took.values()):.0f} s; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
