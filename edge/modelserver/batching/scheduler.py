"""Merge concurrent calls into batches.

`BatchQueue` forms batches, without threads or clock; `BatchScheduler` runs them in a thread pool.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge.modelserver.batching.merging import count_rows, merge, padding_rows, slice_rows, split
from edge.modelserver.batching.parameters import BatchingParameters
from edge.modelserver.models.servable import Servable
from edge.modelserver.status import Code, ServingError
from edge.modelserver.tensors import Array


# Compared by identity: the generated `==` would compare arrays, which have no single truth value.
@dataclass(slots=True, eq=False)
class Task:
    """A call, or one part of a large call, that waits for its outputs.

    Args:
        feeds: tensor name to value.
        size: number of rows.
        deadline_s: deadline of its caller on the monotonic clock; None for no deadline.
    """

    feeds: Mapping[str, Array]
    size: int
    deadline_s: float | None
    done: threading.Event = field(default_factory=threading.Event)
    outputs: list[Array] = field(default_factory=list)
    error: ServingError | None = None


@dataclass(slots=True, eq=False)
class Batch:
    """Tasks that run together."""

    started_s: float = 0.0
    tasks: list[Task] = field(default_factory=list)
    size: int = 0

    def add(self, task: Task, now_s: float) -> None:
        """Add a task; the first one starts the batch timeout."""
        if not self.tasks:
            self.started_s = now_s
        self.tasks.append(task)
        self.size += task.size


class BatchQueue:
    """Batches of calls with the same inputs and outputs, on the same version.

    Bounded by `max_enqueued_batches`; further calls are refused with UNAVAILABLE.
    """

    def __init__(self, parameters: BatchingParameters) -> None:
        self._parameters = parameters
        self._batches = deque([Batch()])

    def add(self, task: Task, now_s: float) -> list[Task]:
        """Queue a call.

        Returns:
            The task itself, or its parts if large batches are split.

        Raises:
            ServingError: INVALID_ARGUMENT if the call has too many rows, UNAVAILABLE if the queue is full.
        """
        self._check(task)
        limit = self._parameters.largest_batch
        tasks: list[Task] = []
        start = 0
        while start < task.size or not tasks:  # `not tasks`: a call without rows becomes one task as well
            # With splitting, a batch with one free row is used; without, the whole call has to fit.
            if self._batches[-1].size + (1 if self._splits else task.size) > limit:
                self._batches.append(Batch())
            part = self._part(task, start, limit - self._batches[-1].size)
            self._batches[-1].add(part, now_s)
            tasks.append(part)
            start += part.size
            if not part.size:
                break  # a call without rows never advances `start`
        return tasks

    @property
    def _splits(self) -> bool:
        return self._parameters.enable_large_batch_splitting

    def _part(self, task: Task, start: int, room: int) -> Task:
        if task.size <= room and start == 0:
            return task
        stop = min(start + room, task.size)
        return Task(slice_rows(task.feeds, start, stop), stop - start, task.deadline_s)

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
        """True if no task is queued."""
        return len(self._batches) == 1 and not self._batches[0].tasks

    def due_s(self) -> float:
        """Return when the first batch may run: -inf if it is full, inf if it is empty, else its timeout."""
        first = self._batches[0]
        # A second batch exists only because a call did not fit: nothing can join the first one any more.
        if len(self._batches) > 1 or first.size >= self._parameters.largest_batch:
            return float("-inf")
        return first.started_s + self._parameters.batch_timeout_micros / 1e6 if first.tasks else float("inf")

    def take(self) -> Batch:
        """Remove and return the first batch."""
        if len(self._batches) == 1:
            self._batches.append(Batch())  # `add` needs an open batch at the end
        return self._batches.popleft()


_Key = tuple[Servable, tuple[str, ...], tuple[str, ...]]


class BatchScheduler:
    """Run the batches of all servables in `num_batch_threads` threads, between `start` and `stop`.

    Args:
        parameters: batch sizes and timeouts.
        on_failure: called with the error if a thread ends with anything other than a ServingError.
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
        """Run the queued batches, refuse new calls, and end the threads; waits at most `timeout_s`."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        deadline_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))

    def run(
        self, servable: Servable, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_s: float | None
    ) -> list[Array]:
        """Run a call as part of a batch and block until it is done. Takes the arguments of `Servable.run`.

        Raises:
            ServingError: the error of the whole batch: one bad row fails every call in the batch.
        """
        now_s = time.monotonic()
        task = Task(feeds, count_rows(feeds), None if timeout_s is None else now_s + timeout_s)
        key = (servable, tuple(sorted(feeds)), tuple(fetches))
        with self._changed:
            if self._stopping:
                raise ServingError(Code.UNAVAILABLE, "The server is shutting down")
            queue = self._queues.get(key) or BatchQueue(self._parameters)
            parts = queue.add(task, now_s)
            self._queues[key] = queue  # after `add`: a refused call leaves no empty queue
            self._changed.notify()
        for part in parts:
            # Without a timeout: `_run_batch` always sets `done`, and the run itself obeys the deadline.
            part.done.wait()
        return _join(parts)

    def _work(self) -> None:
        try:
            while (ready := self._next()) is not None:
                servable, fetches, batch = ready
                _run_batch(servable, fetches, batch, self._parameters)
        except BaseException as error:
            self._on_failure(error)  # without this thread callers would hang, so the server has to end
            raise

    def _next(self) -> tuple[Servable, tuple[str, ...], Batch] | None:
        """Wait for a batch that may run; None when the scheduler stops and no batch is left."""
        with self._changed:
            while True:
                now_s = time.monotonic()
                for key, queue in self._queues.items():
                    if self._stopping or queue.due_s() <= now_s:  # stopping: their callers wait for an answer
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
            # Move it to the end, so that one busy queue cannot starve the others.
            self._queues[key] = self._queues.pop(key)
        if self._queues:
            self._changed.notify()  # this thread is busy now: wake another one for the other batches
        return batch


def _join(parts: list[Task]) -> list[Array]:
    for part in parts:
        if part.error is not None:
            # A new exception: tasks share the error, and threads must not add to one traceback.
            raise ServingError(part.error.code, part.error.message)
    if len(parts) == 1:
        return parts[0].outputs
    return [np.concatenate(outputs) for outputs in zip(*(part.outputs for part in parts), strict=True)]


def _run_batch(
    servable: Servable, fetches: Sequence[str], batch: Batch, parameters: BatchingParameters
) -> None:
    # An empty batch is not padded: padding repeats a row of the batch.
    extra = padding_rows(batch.size, parameters.allowed_batch_sizes) if batch.size else 0
    try:
        timeout_s = _timeout_s(batch.tasks, time.monotonic())
        feeds = merge(
            [task.feeds for task in batch.tasks],
            padding=extra,
            pad_variable_length=parameters.pad_variable_length_inputs,
        )
        outputs = servable.run(feeds, fetches, timeout_s)
        sizes = [task.size for task in batch.tasks]
        for task, task_outputs in zip(batch.tasks, split(outputs, sizes, padding=extra), strict=True):
            task.outputs = task_outputs
    except ServingError as error:
        for task in batch.tasks:
            task.error = error
    except BaseException as error:
        # A bug: answer the callers first, then let it end the thread.
        for task in batch.tasks:
            task.error = ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")
        raise
    finally:
        for task in batch.tasks:
            task.done.set()


def _timeout_s(tasks: Sequence[Task], now_s: float) -> float | None:
    """Return the longest time that a task of the batch has left; None if one has no deadline."""
    # The longest: one short deadline must not fail the other tasks. gRPC itself ends expired calls.
    left = [float("inf") if task.deadline_s is None else task.deadline_s - now_s for task in tasks]
    longest = max(left)
    if longest <= 0:
        raise ServingError(Code.RESOURCE_EXHAUSTED, "Run() timeout exceeded while waiting in batching queue")
    return None if longest == float("inf") else longest
