"""Distributed training: several worker processes that TF_CONFIG names, as Kubeflow's trainer starts them.

Embedding and batches are split between the workers; everything else is cheap, and each worker computes it
identically. The first worker writes the version. If a worker fails, the others end within seconds.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from cloud.dataset.example import TrainingError
from schemas.errors import TransientError

_VARIABLE = "TF_CONFIG"


@dataclass(frozen=True, slots=True)
class Team:
    """The workers of a training, seen from one of them.

    Attributes:
        strategy: TensorFlow's distribution strategy.
        index: number of this worker, from 0.
        count: number of workers.
    """

    strategy: tf.distribute.Strategy
    index: int = 0
    count: int = 1

    @property
    def chief(self) -> bool:
        """True for the first worker, which writes the version."""
        return self.index == 0

    def part(self, length: int) -> slice:
        """Return this worker's part of a sequence; the parts of all workers in order are the whole."""
        # Cumulative bounds: the parts differ by at most one, and none is lost to rounding.
        return slice(length * self.index // self.count, length * (self.index + 1) // self.count)

    def gather(self, part: NDArray[Any]) -> NDArray[Any]:
        """Concatenate the parts of all workers. A collective: each worker calls it, in the same order.

        Args:
            part: `[n, …]`; n may differ between workers.

        Raises:
            TransientError: another worker ended.
        """
        if self.count == 1:  # it would only be copied
            return part
        strategy = self.strategy

        def together(value: tf.Tensor) -> tf.Tensor:
            return strategy.gather(strategy.run(tf.identity, (value,)), axis=0)

        with self.waiting():
            return np.asarray(tf.function(together)(tf.constant(part)).numpy())

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Map the errors of a collective operation.

        Raises:
            TransientError: another worker ended.
        """
        try:
            yield
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
            reason = str(error.message).strip().splitlines()[0]
            raise TransientError(
                f"worker {self.index} lost the other workers: {reason}", hint="start all workers again"
            ) from error

    def agree(self, number: int) -> int:
        """Return the first worker's value, so that all use the same. A collective, like `gather`."""
        return int(self.gather(np.array([number], np.int64))[0])


def alone() -> Team:
    """Return a team of one."""
    return Team(tf.distribute.get_strategy())


def join(environment: Mapping[str, str] = os.environ) -> Team:
    """Join the workers that TF_CONFIG names; without it, return a team of one.

    Blocks until all workers are there. Call it before anything else uses TensorFlow: a strategy cannot be
    created in an initialised runtime.

    Raises:
        TrainingError: TF_CONFIG is invalid, or this worker has several devices.
    """
    if _VARIABLE not in environment:
        return alone()
    index, count = worker_index(environment[_VARIABLE])
    if count == 1:  # one worker needs no connection to others
        return alone()
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    # With several devices each part would be split again, which `part` and `gather` do not account for.
    devices = strategy.extended.worker_devices
    if len(devices) != 1:
        raise TrainingError(f"devices of worker {index}", expected="one", got=", ".join(devices))
    return Team(strategy, index, count)


def worker_index(config: str) -> tuple[int, int]:
    """Read this worker's number and the number of workers from TF_CONFIG.

    Raises:
        TrainingError: it is not as TensorFlow specifies it.
    """
    try:
        fields = json.loads(config)
        cluster, task = fields["cluster"], fields["task"]
        # The chief is worker 0 where there is one; parameter servers and evaluators do not train.
        workers = [
            (kind, number) for kind in ("chief", "worker") for number, _ in enumerate(cluster.get(kind, ()))
        ]
        return workers.index((task["type"], int(task["index"]))), len(workers)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            _VARIABLE, expected="a cluster with this worker's task", got=f"{config!r} ({error!r})"
        ) from None
