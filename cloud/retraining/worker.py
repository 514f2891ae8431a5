"""Run one step of a round: `python -m cloud.retraining.worker` reads it from standard input.

Steps are child processes because a training may be killed for its use of memory: the trainer and its
connection to the broker survive that.
"""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from functools import partial
from pathlib import Path

import msgspec
import structlog

from bus import config, log
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.session import connected
from cloud.modeling.load_tensorflow import load_tensorflow
from cloud.progress import LoggedProgress
from cloud.ray_jobs.ahead import check_alone, embed_for_teacher, embed_for_training
from cloud.registry.registry import Registry
from cloud.retraining.steps import ReleaseStep, Step, TeachStep, TuneStep
from cloud.rollout.policy_update import raising_audits, retained_policies, tuning, update_policies
from cloud.rollout.runner import release_version
from cloud.training.pipeline import TrainingOptions, run_training
from schemas.errors import GleanerError, TransientError
from schemas.text import escaped
from schemas.topics import POLICY

logger = structlog.get_logger()

MAX_LISTED = 100
"""Most photos that the log names of those that a training leaves out; the card has their number."""
EXIT_FAILED = 1
EXIT_TEMPORARY = 75  # EX_TEMPFAIL of sysexits.h


def run_step(step: Step) -> None:
    """Run a step to its end.

    Raises:
        GleanerError: It failed; from tasks in an `ExceptionGroup`.
    """
    match step:
        # SIGTERM ends these two at once: a Python handler would wait for TensorFlow to return.
        case TeachStep():
            _teach(step)
        case TrainingOptions():
            _train(step)
        case ReleaseStep():
            _run_until_sigterm(_release(step))
        case TuneStep():
            _run_until_sigterm(_tune(step))


def _teach(step: TeachStep) -> None:
    from cloud.dataset.store import Store  # noqa: PLC0415  # before TensorFlow: a missing dataset fails at once

    store = Store.open(step.dataset, create=False)
    load_tensorflow()
    from cloud.labeling.auto_label import teach  # noqa: PLC0415  # uses TensorFlow

    progress = LoggedProgress()
    if step.ray is not None:
        embed_for_teacher(step.dataset, step.backbones, step.ray, Path(step.cache), progress)
    taught = teach(store, step.backbones, Path(step.cache), progress=progress)
    logger.info("samples.taught", labelled=taught.labelled, withdrawn=taught.withdrawn, by=taught.by)


def _train(options: TrainingOptions) -> None:
    progress = LoggedProgress()
    check_alone(options.ray)
    embed = None if options.ray is None else partial(embed_for_training, options, progress=progress)
    run = run_training(options, progress, embed)
    for one in run.left_out[:MAX_LISTED]:
        logger.warning("photo.left_out", photo_id=one.photo_id, file=one.file, reason=one.reason)
    for warning in run.warnings:
        logger.warning("training.warning", reason=warning)
    if run.trained is not None:
        card = run.trained.card
        decision = None if card.verdict is None else card.verdict.decision
        facts = {"version": card.version, "chosen": card.chosen, "decision": decision}
        logger.info("version.trained", **facts, left_out=card.left_out)


async def _release(step: ReleaseStep) -> None:
    await release_version(
        Registry(step.models),
        step.version,
        step.options,
        dataset=step.dataset,
        broker=step.broker,
        password=config.password(
            step.broker
        ),  # inherited in the environment: never in a command line or a file
    )


async def _tune(step: TuneStep) -> None:
    if step.audit_share is not None:
        change = raising_audits(step.audit_share)
    else:
        change = tuning(step.dataset, Registry(step.models))
    bus = Bus(step.broker, transient_client_id("policy"), password=config.password(step.broker))
    policies = bus.subscribe(POLICY)
    async with connected(bus, step.broker):
        known = await retained_policies(policies, step.nodes)
        async for node, reasons in update_policies(bus, policies, step.nodes, known, change):
            logger.info("policy.tuned", node=node, reasons=reasons)


def _run_until_sigterm(step: Coroutine[None, None, None]) -> None:
    """Run a coroutine; SIGTERM cancels it, so that it disconnects from the broker in order.

    Without a deadline: the trainer kills a step that takes too long to end.
    """

    async def cancellable() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await step

    asyncio.run(cancellable())


def main() -> int:
    """Run the step on standard input.

    Returns:
        0 if it is done, 1 if it failed, 75 if it may succeed later. The last line of the output is the
        reason, which the trainer publishes.
    """
    log.configure("info", json=True)  # never colours: the output goes to a file
    step = msgspec.json.decode(sys.stdin.buffer.read(), type=Step)
    try:
        run_step(step)
    except (GleanerError, OSError, BaseExceptionGroup) as error:
        cause: BaseException = error
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        if not isinstance(cause, GleanerError | OSError):
            raise  # a bug: the log gets its traceback
        sys.stderr.write(f"{escaped(cause)}\n")
        return EXIT_TEMPORARY if isinstance(cause, TransientError) else EXIT_FAILED
    except (asyncio.CancelledError, KeyboardInterrupt):  # SIGTERM; Ctrl-C in the trainer's terminal
        return EXIT_TEMPORARY
    return 0


if __name__ == "__main__":
    sys.exit(main())
