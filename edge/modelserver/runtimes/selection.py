"""Choose the runtime of a version."""

import importlib.util
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from edge.modelserver.flags import Flags
from edge.modelserver.runtimes import litert, tensorflow_package
from edge.modelserver.runtimes.allocator import use_one_heap
from edge.modelserver.runtimes.base import Program, Runtime
from edge.modelserver.runtimes.decoding_memory import DecodingMemory, default_bytes
from edge.modelserver.runtimes.litert import LiteRTRuntime
from edge.modelserver.runtimes.variant import VariantOptions, cache_file
from edge.modelserver.status import Code, ServingError
from schemas.distribution import install_command
from schemas.errors import PermanentError
from schemas.image import ImageLimits
from schemas.litert import MANIFEST_FILE

_THREADS_FOR_SMALL = 3  # one decodes a large image, and two are left for others while further ones wait


def select_runtime(flags: Flags) -> Runtime:
    """Return the runtime that the flags ask for.

    Raises:
        PermanentError: it is not installed.
    """
    auto = AutoRuntime(flags)
    match flags.runtime:
        case "tensorflow":
            return auto.tensorflow
        case "litert":
            return auto.litert
        case _:
            if not litert.is_installed():
                return auto.tensorflow  # now: without either runtime the server must not start
            return auto


@dataclass(frozen=True)
class AutoRuntime:
    """LiteRT for versions with a LiteRT part, TensorFlow for others; each is loaded when it is first needed.

    Args:
        flags: settings of the runtimes.
    """

    flags: Flags

    @cached_property
    def memory(self) -> DecodingMemory:
        """What both decode in."""
        largest = ImageLimits.for_pixels(self.flags.max_image_pixels).max_decoded_bytes
        return DecodingMemory(
            self.flags.max_decoding_bytes or default_bytes(largest),
            max(1, self.flags.grpc_max_threads - _THREADS_FOR_SMALL),
        )

    @cached_property
    def tensorflow(self) -> Runtime:
        """TensorFlow.

        Raises:
            PermanentError: it is not installed.
        """
        tensorflow_package.prepare()
        from edge.modelserver.runtimes.graph import SessionOptions, TensorFlowRuntime  # noqa: PLC0415 - loads it

        flags = self.flags
        return TensorFlowRuntime(
            SessionOptions(flags.intra_op_parallelism, flags.inter_op_parallelism, flags.prefer_tflite_model),
            self.memory,
        )

    @cached_property
    def litert(self) -> Runtime:
        """LiteRT.

        Raises:
            PermanentError: it is not installed.
        """
        if not litert.is_installed():
            raise PermanentError(
                "cannot start the model server: LiteRT is not installed", hint=install_command("litert")
            )
        use_one_heap()
        options = VariantOptions(self.flags.litert_variant, self.flags.litert_cache or cache_file())
        return LiteRTRuntime(self.flags.intra_op_parallelism, options, self.memory)

    def load(self, path: Path) -> Program:
        """Load the version in a directory with the runtime for it.

        Raises:
            ServingError: it cannot be loaded, or needs TensorFlow, which is not installed.
        """
        if litert.has_variants(path):
            return self.litert.load(path)
        if "tensorflow" not in sys.modules and importlib.util.find_spec("tensorflow") is None:
            raise ServingError(
                Code.FAILED_PRECONDITION,
                f"{path} has no LiteRT variant ({MANIFEST_FILE}), and TensorFlow is not installed: train the "
                f"version again, or {install_command('modelserver')}",
            )
        return self.tensorflow.load(path)
