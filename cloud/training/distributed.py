"""Several workers that train one model together, each a process that is told of the others by TF_CONFIG.

That is how Kubeflow's trainer starts them. Photos are embedded and batches are computed in parts, one for
each worker; what follows costs little, and every worker computes the same. The first one writes the model. A
worker that fails ends the others within seconds.
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
    """The workers, as one of them sees them; by default it is alone.

    Attributes:
        strategy: of TensorFlow.
        index: which of them this is.
        count: how many there are.
    """

    strategy: tf.distribute.Strategy
    index: int = 0
    count: int = 1

    @property
    def chief(self) -> bool:
        """True for the one that writes."""
        return self.index == 0

    def part(self, length: int) -> slice:
        """Return this worker's part of so many things; the parts in order are the whole."""
        return slice(length * self.index // self.count, length * (self.index + 1) // self.count)

    def gather(self, part: NDArray[Any]) -> NDArray[Any]:
        """Return all workers' parts, one behind the other. All call it, as often and in the same order.

        Args:
            part: `[n, …]`; n may differ from worker to worker.

        Raises:
            TransientError: another worker ended.
        """
        if self.count == 1:
            return part
        strategy = self.strategy

        def together(value: tf.Tensor) -> tf.Tensor:
            return strategy.gather(strategy.run(tf.identity, (value,)), axis=0)

        with self.waiting():
            return np.asarray(tf.function(together)(tf.constant(part)).numpy())

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Do what takes all workers.

        Raises:
            TransientError: another worker ended.
        """
        try:
            yield
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
            got = str(error.message).strip().splitlines()[0]
            raise TransientError(f"worker {self.index}", expected="the other workers", got=got) from error

    def agree(self, number: int) -> int:
        """Return the first worker's number."""
        return int(self.gather(np.array([number], np.int64))[0])


def alone() -> Team:
    """Return a team of one."""
    return Team(tf.distribute.get_strategy())


def join(environment: Mapping[str, str] = os.environ) -> Team:
    """Join the workers that TF_CONFIG names, or none. Waits for them; TensorFlow must not be in use yet.

    Raises:
        TrainingError: TF_CONFIG is none, or this worker has several devices.
    """
    if _VARIABLE not in environment:
        return alone()
    index, count = read_place(environment[_VARIABLE])
    if count == 1:
        return alone()
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    devices = strategy.extended.worker_devices
    if len(devices) != 1:
        raise TrainingError(f"worker {index}: expected one device, got {', '.join(devices)}")
    return Team(strategy, index, count)


def read_place(config: str) -> tuple[int, int]:
    """Return which worker this is, and of how many.

    Raises:
        TrainingError: it is not as TensorFlow specifies it.
    """
    try:
        said = json.loads(config)
        cluster, task = said["cluster"], said["task"]
        places = [
            (kind, number) for kind in ("chief", "worker") for number, _ in enumerate(cluster.get(kind, ()))
        ]
        return places.index((task["type"], int(task["index"]))), len(places)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"{_VARIABLE}: expected a cluster and this worker's task in it, got {error}"
        ) from None
