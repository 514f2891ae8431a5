"""Start, run and stop the threads of the server."""

import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import grpc
import structlog

from bus import systemd
from edge.modelserver.batching.scheduler import BatchScheduler
from edge.modelserver.flags import Flags
from edge.modelserver.models.loader import Loader, LoaderSchedule
from edge.modelserver.models.repository import Repository
from edge.modelserver.models.servable import Servable
from edge.modelserver.models.warmup import warm_up
from edge.modelserver.monitoring.request_metrics import RequestMetrics
from edge.modelserver.requests.image_budget import within_budget
from edge.modelserver.requests.predict import Runner
from edge.modelserver.runtimes.base import Runtime
from edge.modelserver.services import ModelService, PredictionService, add_services
from edge.modelserver.status import ServingError
from schemas.image import ImageLimits

GRACE_S = 5.0
"""Seconds that requests may continue after the stop; then they are cancelled."""

CLEANUP_S = 2.0
"""Seconds that each of the other threads gets to end after that."""

_STATUS_THREADS = 2

MAX_QUEUED_CALLS = 1000
"""Calls that may wait for a thread; further ones get RESOURCE_EXHAUSTED."""

_GRPC_OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # as tensorflow_model_server: a batch of photos exceeds 4 MB
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),  # otherwise a second server would share the port and receive some requests
)

log = structlog.get_logger()


def run(flags: Flags, runtime: Runtime, stop: threading.Event) -> int:
    """Serve until `stop` is set.

    As with tensorflow_model_server, the port opens once each model has an available version; until then
    the server waits for versions to appear.

    Args:
        flags: the command line.
        runtime: loads the versions.
        stop: set by the caller to end the server; also set here if one of the threads fails.

    Returns:
        The exit code: 0 after a stop, 1 if the server could not start or one of its threads failed.
    """
    gc.freeze()  # exclude the imported modules from the collections after each unload
    failures: list[BaseException] = []

    def fail(error: BaseException) -> None:
        failures.append(error)
        stop.set()

    repository = Repository(allow_labels_for_unavailable=flags.allow_labels_for_unavailable)
    loader = Loader(repository, partial(_load, flags, runtime), _schedule(flags))
    thread = threading.Thread(
        target=_run_reporting, args=(loader.run, fail), name="modelserver.loader", daemon=True
    )
    thread.start()
    scheduler = BatchScheduler(flags.batching, fail) if flags.batching else None
    metrics = RequestMetrics(repository.is_served)
    try:
        with _metrics_served(flags, metrics, fail):
            code = _start_and_serve(flags, repository, scheduler, metrics, stop)
    finally:
        repository.stop()
        thread.join(CLEANUP_S)
    if thread.is_alive() or not loader.close(CLEANUP_S):
        # The runtime is still in a load or a run: a normal exit would free the interpreter under its threads.
        log.warning("modelserver.stopped", unfinished=True)
        # `os._exit` skips clean-up, also the flushing of buffers.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    for failure in failures:
        log.error("modelserver.failed", error=repr(failure))
    log.info("modelserver.stopped")
    return 1 if failures else code


def _run_reporting(target: Callable[[], None], fail: Callable[[BaseException], None]) -> None:
    try:
        target()
    except BaseException as error:
        fail(error)
        raise


def _schedule(flags: Flags) -> LoaderSchedule:
    return LoaderSchedule(flags.poll_wait_s, flags.max_num_load_retries, flags.load_retry_interval_s)


def _load(flags: Flags, runtime: Runtime, name: str, version: int, path: Path) -> Servable:
    servable = Servable(name, version, runtime.load(path))
    try:
        if flags.enable_model_warmup:
            started_s = time.monotonic()
            count = warm_up(servable, path)
            seconds = round(time.monotonic() - started_s, 3)
            log.info("modelserver.warmed", model=name, version=version, records=count, seconds=seconds)
    except BaseException:
        servable.close()  # a retry loads it again: without this its memory would leak
        raise
    return servable


def _metrics_served(
    flags: Flags, metrics: RequestMetrics, fail: Callable[[BaseException], None]
) -> AbstractContextManager[None]:
    if not flags.metrics_port:
        return nullcontext()
    from edge.modelserver.monitoring import endpoint  # noqa: PLC0415 - asyncio costs memory, few servers need it

    address = f"{flags.host}:{flags.metrics_port}"
    return endpoint.serving(address, flags.metrics_path, metrics.page, fail, CLEANUP_S)


def _start_and_serve(
    flags: Flags,
    repository: Repository,
    scheduler: BatchScheduler | None,
    metrics: RequestMetrics,
    stop: threading.Event,
) -> int:
    try:
        repository.reload(flags.models, is_cancelled=stop.is_set)
    except ServingError as error:
        if stop.is_set():
            return 0  # stopped while it waited for a version: not a failure
        log.error("modelserver.start_failed", error=str(error))  # noqa: TRY400 - one line, no traceback
        return 1
    if scheduler is None:
        return _serve(flags, repository, Servable.run, metrics, stop)
    scheduler.start()
    try:
        return _serve(flags, repository, scheduler.run, metrics, stop)
    finally:
        scheduler.stop(CLEANUP_S)


def _serve(
    flags: Flags, repository: Repository, runner: Runner, metrics: RequestMetrics, stop: threading.Event
) -> int:
    pool = ThreadPoolExecutor(flags.grpc_max_threads, thread_name_prefix="modelserver.rpc")
    status_pool = ThreadPoolExecutor(_STATUS_THREADS, thread_name_prefix="modelserver.status")
    most_calls = flags.grpc_max_threads + MAX_QUEUED_CALLS
    server = grpc.server(pool, options=_GRPC_OPTIONS, maximum_concurrent_rpcs=most_calls)
    limits = ImageLimits.for_pixels(flags.max_image_pixels)
    prediction = PredictionService(repository, within_budget(runner, limits), metrics)
    add_services(server, prediction, ModelService(repository, stop.is_set, status_pool))
    try:
        port = _listen(server, flags)
    except RuntimeError as error:
        log.error(  # noqa: TRY400 - one line, no traceback
            "modelserver.start_failed",
            host=flags.host,
            port=flags.port,
            socket=flags.socket_path,
            error=str(error),
        )
        return 1
    server.start()
    models = [model.name for model in flags.models]
    log.info("modelserver.listening", host=flags.host, port=port, socket=flags.socket_path, models=models)
    told = systemd.notify(systemd.READY)
    while not stop.wait(systemd.interval_s()):
        told = systemd.notify(systemd.ALIVE if told else systemd.READY)  # its queue was full
    systemd.notify(systemd.STOPPING)
    # Refuses new calls at once, lets running ones end, and cancels those that outlast the grace period.
    ended = server.stop(GRACE_S)
    log.info("modelserver.stopping", grace_s=GRACE_S)
    ended.wait()
    # Without waiting: the thread of a cancelled call may still be in the runtime; `run` deals with it.
    pool.shutdown(wait=False, cancel_futures=True)
    status_pool.shutdown(wait=False, cancel_futures=True)
    return 0


def _listen(server: grpc.Server, flags: Flags) -> int | None:
    """Bind the addresses of the flags; return the TCP port, or None if there is only a socket.

    Raises:
        RuntimeError: An address is in use or cannot be bound.
    """
    if flags.socket_path is not None:
        server.add_insecure_port(f"unix:{flags.socket_path}")  # gRPC replaces a socket that is left over
        if not flags.port:
            return None
    return int(server.add_insecure_port(f"{flags.host}:{flags.port}"))
