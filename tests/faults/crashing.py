"""Run a `gleaner` command that kills itself at a chosen step of the protocol.

    python -m tests.faults.crashing --at edge.in-transaction --nth 3 edge --config edge.toml

The product is unchanged: the named functions are wrapped before the command starts. At the n-th call the
process sends itself SIGKILL, or SIGSTOP.
"""

import importlib
import inspect
import itertools
import os
import signal
import sys
from argparse import REMAINDER, ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal

from cli import run_service
from tests.faults import acceptance, variants

STOP_S = 120.0
"""Seconds that a command gets to stop; the product's own limit is too short for a busy machine."""

_PUBLISH = "bus.mqtt.client:Bus.publish_bytes"
_ACKNOWLEDGE = "paho.mqtt.client:Client.ack"


@dataclass(frozen=True, slots=True)
class Point:
    """A point in the protocol: before or after a function.

    Args:
        when: Before or after the call.
        function: `module:name` or `module:Class.name`.
        topic: Count only calls with this kind of topic.
    """

    when: Literal["before", "after"]
    function: str
    topic: str = ""


POINTS = {
    "device.photo-taken": Point("before", "bus.outbox.outbox:Outbox.put"),
    "device.photo-kept": Point("after", "bus.outbox.outbox:Outbox.put"),
    "device.photo-publishing": Point("before", _PUBLISH, "photo"),
    "device.photo-published": Point("after", _PUBLISH, "photo"),
    "device.answer-received": Point("before", "bus.outbox.outbox:Outbox.mark_answered"),
    "device.answer-in-transaction": Point("after", "device.result_log:record"),
    "device.answer-recorded": Point("after", "bus.outbox.outbox:Outbox.mark_answered"),
    "device.answer-acknowledged": Point("after", _ACKNOWLEDGE),
    "edge.photo-received": Point("before", "edge.inference.pipeline:validate"),
    "edge.predicting": Point("before", "edge.serving.client:Predictor.predict"),
    "edge.predicted": Point("after", "edge.serving.client:Predictor.predict"),
    "edge.sample-made": Point("after", "edge.harvest.sampler:Sampler.sample"),
    "edge.in-transaction": Point("after", "edge.inference.answers.result_log:record"),
    "edge.result-publishing": Point("before", _PUBLISH, "result"),
    "edge.result-published": Point("after", _PUBLISH, "result"),
    "edge.photo-acknowledged": Point("after", _ACKNOWLEDGE),
    "edge.sample-publishing": Point("before", _PUBLISH, "sample"),
    "edge.sample-published": Point("after", _PUBLISH, "sample"),
    "edge.receipt-received": Point("before", "bus.outbox.outbox:Outbox.mark_answered"),
    "edge.receipt-settled": Point("after", "bus.outbox.outbox:Outbox.mark_answered"),
    # Only for photos that are shrunk after the answer, which those of the laboratory are not.
    "large-photo.answered": Point("after", "edge.harvest.shrinking.shrinking:Shrinking.put"),
    "large-photo.shrinking": Point("before", "edge.harvest.shrinking.image:shrink"),
    "large-photo.in-transaction": Point("after", "bus.outbox.rows:replace"),
    "large-photo.shrunk": Point("after", "edge.harvest.shrinking.shrinking:Shrinking.finish"),
    "collector.sample-received": Point("before", "cloud.dataset.store:Store.upsert"),
    "collector.rows-written": Point("after", "cloud.dataset.table.durable_commit:sync_fragments"),
    "collector.rows-committed": Point("before", "cloud.dataset.table.durable_commit:sync_version"),
    "collector.stored": Point("after", "cloud.dataset.store:Store.upsert"),
    "collector.receipt-publishing": Point("before", _PUBLISH, "receipt"),
    "collector.receipt-published": Point("after", _PUBLISH, "receipt"),
    "collector.sample-acknowledged": Point("after", _ACKNOWLEDGE),
    "collector.compaction-written": Point("after", "cloud.dataset.table.lance_table:sync_fragments"),
    "collector.compacted": Point("after", "cloud.dataset.table.lance_table:Table.compact"),
    "model-server.predicting": Point("before", "edge.modelserver.services:PredictionService.Predict"),
    "model-server.predicted": Point("after", "edge.modelserver.services:PredictionService.Predict"),
}
"""Every point between two steps of the protocol, by component."""


def points_of(component: str) -> list[str]:
    """Return the steps of a component such as `edge` or `device-1`, in the order of the protocol."""
    kind = component.rstrip("-0123456789")
    return [name for name in POINTS if name.startswith(f"{kind}.")]


def find(function: str) -> tuple[Any, str, Callable[..., Any]]:
    """Return the object that has a function, the name of its attribute, and the function.

    Raises:
        AttributeError, ModuleNotFoundError: The function does not exist any more.
    """
    module, path = function.split(":")
    if module.startswith("edge.modelserver"):
        importlib.import_module("edge.modelserver.runtimes.tensorflow_package").prepare()
    owner = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    return owner, name, getattr(owner, name)


def arm(point: Point, nth: int, end: signal.Signals) -> None:
    """Wrap a function so that its n-th call sends the signal to this process."""
    owner, name, original = find(point.function)
    calls = itertools.count(1)

    def pass_by(side: str, *arguments: object) -> None:
        wanted = side == point.when and (not point.topic or f"/{point.topic}/" in str(arguments[1]))
        if wanted and next(calls) == nth:
            os.kill(os.getpid(), end)

    @wraps(original)
    async def awaited(*arguments: Any, **options: Any) -> Any:
        pass_by("before", *arguments)
        outcome = await original(*arguments, **options)
        pass_by("after", *arguments)
        return outcome

    @wraps(original)
    def called(*arguments: Any, **options: Any) -> Any:
        pass_by("before", *arguments)
        outcome = original(*arguments, **options)
        pass_by("after", *arguments)
        return outcome

    setattr(owner, name, awaited if inspect.iscoroutinefunction(original) else called)


def main() -> int:
    """Wrap the function of the chosen step, then run the command."""
    parser = ArgumentParser(prog="python -m tests.faults.crashing")
    parser.add_argument("--at", choices=POINTS)
    parser.add_argument("--nth", type=int, default=1)
    parser.add_argument("--stop", action="store_true", help="suspend there instead")
    parser.add_argument("--variant", choices=variants.VARIANTS)
    parser.add_argument("command", nargs=REMAINDER)
    arguments = parser.parse_args()
    run_service.STOP_S = STOP_S
    if arguments.variant:
        variants.VARIANTS[arguments.variant]()
    if acceptance.ENVIRONMENT in os.environ:
        acceptance.record()  # outside the parts that a variant replaces
    if arguments.at in {"collector.compaction-written", "collector.compacted"}:
        importlib.import_module(
            "cloud.collector.collector"
        )._FRAGMENTS = 4  # otherwise compaction needs 128 commits
    if arguments.at:
        arm(POINTS[arguments.at], arguments.nth, signal.SIGSTOP if arguments.stop else signal.SIGKILL)
    from cli.main import main as gleaner  # noqa: PLC0415  # after its functions are wrapped

    return gleaner(arguments.command)


if __name__ == "__main__":
    sys.exit(main())
