"""Server-side batching: calls that wait at the same time run as one.

`BatchQueue` decides without threads; `BatchScheduler` runs its batches in threads.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge.modelserver.batching_parameters import BatchingParameters
from edge.modelserver.merging import merged, padding, rows, sliced, split
from edge.modelserver.servable import Servable
from edge.modelserver.status import Code, ServingError
from edge.modelserver.tensors import Array


@dataclass(slots=True, eq=False)
class Task:
    """A call, or the part of a large one that fits a batch, waiting for its outputs.

    Args:
        feeds: tensor name to value.
        size: rows.
        deadline_s: when its caller stops waiting, on the monotonic clock; None for never.
    """

    feeds: Mapping[str, Array]
    size: int
    deadline_s: float | None
    done: threading.Event = field(default_factory=threading.Event)
    outputs: list[Array] = field(default_factory=list)
    error: ServingError | None = None


@dataclass(slots=True, eq=False)
class Batch:
    """Tasks that will run as one."""

    started_s: float = 0.0
    tasks: list[Task] = field(default_factory=list)
    size: int = 0

    def add(self, task: Task, now_s: float) -> None:
        """Take a task in; the first one starts the clock of the batch."""
        if not self.tasks:
            self.started_s = now_s
        self.tasks.append(task)
        self.size += task.size


class BatchQueue:
    """The batches of one kind of call: the same inputs and outputs of the same version.

    Bounded by `max_enqueued_batches`; a call beyond that is refused as UNAVAILABLE.
    """

    def __init__(self, parameters: BatchingParameters) -> None:
        self._parameters = parameters
        self._batches = deque([Batch()])

    def add(self, task: Task, now_s: float) -> list[Task]:
        """Queue a call.

        Returns:
            The tasks that it became: itself, or its parts where large batches are split.

        Raises:
            ServingError: INVALID_ARGUMENT for more rows than a call may have, UNAVAILABLE when full.
        """
        self._check(task)
        limit = self._parameters.largest_batch
        tasks: list[Task] = []
        start = 0
        while start < task.size or not tasks:
            if self._batches[-1].size + (1 if self._splits else task.size) > limit:
                self._batches.append(Batch())
            part = self._part(task, start, limit - self._batches[-1].size)
            self._batches[-1].add(part, now_s)
            tasks.append(part)
            start += part.size
            if not part.size:
                break
        return tasks

    @property
    def _splits(self) -> bool:
        return self._parameters.enable_large_batch_splitting

    def _part(self, task: Task, start: int, room: int) -> Task:
        if task.size <= room and start == 0:
            return task
        stop = min(start + room, task.size)
        return Task(sliced(task.feeds, start, stop), stop - start, task.deadline_s)

    def _check(self, task: Task) -> None:
        longest, limit = self._parameters.max_batch_size, self._parameters.max_enqueued_batches
        if task.size > longest:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"Task size {task.size} is larger than maximum input batch size {longest}",
            )
        full = "The batch scheduling queue to which this task was submitted is full"
        waiting, last = len(self._batches), self._batches[-1].size
        if self._splits:
            capacity = (limit - waiting + 1) * self._parameters.largest_batch - last
            if task.size > capacity:
                raise ServingError(
                    Code.UNAVAILABLE,
                    f"{full}; task size is {task.size} but scheduling capacity is only {capacity} "
                    f"(num_enqueued_batches={waiting}, max_enqueued_batches={limit}, open_batch_size={last}, "
                    f"max_execution_batch_size={self._parameters.largest_batch})",
                )
        elif last + task.size > longest and waiting >= limit:
            raise ServingError(
                Code.UNAVAILABLE,
                f"{full}; currently {waiting} batches enqueued and max_enqueued_batches is {limit}",
            )

    @property
    def empty(self) -> bool:
        """Whether nothing waits here."""
        return len(self._batches) == 1 and not self._batches[0].tasks

    def due_s(self) -> float:
        """Say when the first batch may run: in the past when it is full, else when its wait is over."""
        first = self._batches[0]
        if len(self._batches) > 1 or first.size >= self._parameters.largest_batch:
            return float("-inf")
        return first.started_s + self._parameters.batch_timeout_micros / 1e6 if first.tasks else float("inf")

    def take(self) -> Batch:
        """Take the first batch out."""
        if len(self._batches) == 1:
            self._batches.append(Batch())
        return self._batches.popleft()


_Key = tuple[Servable, tuple[str, ...], tuple[str, ...]]


class BatchScheduler:
    """Runs the batches of all servables in `num_batch_threads` threads, between `start` and `stop`.

    Args:
        parameters: sizes and waits.
        on_failure: told of anything but a ServingError that ends a thread.
    """

    def __init__(self, parameters: BatchingParameters, on_failure: Callable[[BaseException], None]) -> None:
        self._parameters = parameters
        self._on_failure = on_failure
        self._changed = threading.Condition()
        self._queues: dict[_Key, BatchQueue] = {}
        self._stopping = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads."""
        for number in range(self._parameters.num_batch_threads):
            thread = threading.Thread(target=self._work, name=f"modelserver.batch-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, timeout_s: float) -> None:
        """Run what is queued, refuse what comes, and end the threads, waiting `timeout_s` at most."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        deadline_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))

    def run(
        self, servable: Servable, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_s: float | None
    ) -> list[Array]:
        """Run a call as part of a batch; blocks until it is done. Arguments as of `Servable.run`.

        Raises:
            ServingError: of the whole batch: one bad row fails all that were merged with it.
        """
        now_s = time.monotonic()
        task = Task(feeds, rows(feeds), None if timeout_s is None else now_s + timeout_s)
        key = (servable, tuple(sorted(feeds)), tuple(fetches))
        with self._changed:
            if self._stopping:
                raise ServingError(Code.UNAVAILABLE, "The server is shutting down")
            queue = self._queues.get(key) or BatchQueue(self._parameters)
            parts = queue.add(task, now_s)
            self._queues[key] = queue  # only now: a refused call leaves no empty queue behind
            self._changed.notify()
        for part in parts:
            part.done.wait()
        return _joined(parts)

    def _work(self) -> None:
        try:
            while (taken := self._next()) is not None:
                servable, fetches, batch = taken
                _run_batch(servable, fetches, batch, self._parameters)
        except BaseException as error:
            self._on_failure(error)
            raise

    def _next(self) -> tuple[Servable, tuple[str, ...], Batch] | None:
        """Wait for a batch that may run. None when stopping and nothing is left."""
        with self._changed:
            while True:
                now_s = time.monotonic()
                for key, queue in self._queues.items():
                    if self._stopping or queue.due_s() <= now_s:
                        return key[0], key[2], self._take(key)
                if self._stopping:
                    return None
                due_s = min((queue.due_s() for queue in self._queues.values()), default=None)
                self._changed.wait(None if due_s is None else due_s - now_s)

    def _take(self, key: _Key) -> Batch:
        batch = self._queues[key].take()
        if self._queues[key].empty:
            del self._queues[key]
        else:
            # Behind the others, so that one busy queue starves nobody.
            self._queues[key] = self._queues.pop(key)
        if self._queues:
            self._changed.notify()  # this thread is about to be busy: another one minds the rest
        return batch


def _joined(parts: list[Task]) -> list[Array]:
    for part in parts:
        if part.error is not None:
            raise ServingError(part.error.code, part.error.message)
    if len(parts) == 1:
        return parts[0].outputs
    return [np.concatenate(outputs) for outputs in zip(*(part.outputs for part in parts), strict=True)]


def _run_batch(
    servable: Servable, fetches: Sequence[str], batch: Batch, parameters: BatchingParameters
) -> None:
    extra = padding(batch.size, parameters.allowed_batch_sizes) if batch.size else 0
    try:
        timeout_s = _timeout_s(batch.tasks, time.monotonic())
        feeds = merged(
            [task.feeds for task in batch.tasks],
            padding_rows=extra,
            pad_variable_length=parameters.pad_variable_length_inputs,
        )
        outputs = servable.run(feeds, fetches, timeout_s)
        sizes = [task.size for task in batch.tasks]
        for task, own in zip(batch.tasks, split(outputs, sizes, padding_rows=extra), strict=True):
            task.outputs = own
    except ServingError as error:
        for task in batch.tasks:
            task.error = error
    except BaseException as error:
        for task in batch.tasks:
            task.error = ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")
        raise
    finally:
        for task in batch.tasks:
            task.done.set()


def _timeout_s(tasks: Sequence[Task], now_s: float) -> float | None:
    """Give a batch the time that its most patient task has left; None where one waits for ever."""
    left = [float("inf") if task.deadline_s is None else task.deadline_s - now_s for task in tasks]
    longest = max(left)
    if longest <= 0:
        raise ServingError(Code.RESOURCE_EXHAUSTED, "Run() timeout exceeded while waiting in batching queue")
    return None if longest == float("inf") else longest
