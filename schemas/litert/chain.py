"""Run a chain of LiteRT networks, in the training's gate and in the model server alike."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.litert.manifest import PIXELS_TENSOR

Values = Mapping[str, NDArray[Any]]


class Chain:
    """Networks in memory, each on the earlier outputs that it takes; not thread-safe.

    Attributes:
        empty: the outputs of all networks for no photos, by name, each `[0, …]`.

    Args:
        networks: files, or contents of files; at least one.
        input_name: name of the first input.

    Raises:
        ImportError: LiteRT is not installed.
        RuntimeError, ValueError: LiteRT cannot load a network, or one takes an input that no earlier one has.
    """

    def __init__(self, networks: Sequence[Path | bytes], input_name: str = PIXELS_TENSOR) -> None:
        self._input_name = input_name
        self._runners: list[tuple[Any, tuple[str, ...]]] = []
        self.empty: dict[str, NDArray[Any]] = {}
        for network in networks:
            runner = _runner(network)
            inputs = tuple(runner.get_input_details())
            missing = set(inputs) - {input_name, *self.empty}
            if missing:
                raise ValueError(f"input {min(missing)!r} is not an output of an earlier network")
            self._runners.append((runner, inputs))
            for name, detail in runner.get_output_details().items():
                self.empty[name] = np.empty((0, *detail["shape"][1:]), detail["dtype"])

    def run(self, value: NDArray[Any]) -> Values:
        """Return the outputs of all networks for the first input.

        Raises:
            RuntimeError, ValueError: LiteRT cannot run a network on this input.
        """
        values = {self._input_name: value}
        for runner, inputs in self._runners:
            values |= runner(**{name: values[name] for name in inputs})
        return {name: values[name] for name in self.empty}


def _runner(network: Path | bytes) -> Any:
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - only for programs that run networks

    # One thread: photos in parallel scale better than operations in parallel.
    if isinstance(network, Path):
        return Interpreter(model_path=str(network), num_threads=1).get_signature_runner()
    return Interpreter(model_content=network, num_threads=1).get_signature_runner()
