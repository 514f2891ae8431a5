"""One loaded version of a model, and the requests that use it."""

import threading
from collections.abc import Callable, Mapping, Sequence

from edge.modelserver.runtimes.base import Program, signature_of
from edge.modelserver.tensors import Array


class Servable:
    """A loaded version of a model; thread-safe.

    Requests hold it between `acquire` and `release`. `retire` refuses new ones; once the last has ended the
    version is `idle` and can be closed without failing a request.

    Args:
        name: the model.
        version: its number.
        program: what runs it.
    """

    def __init__(self, name: str, version: int, program: Program) -> None:
        self.name = name
        self.version = version
        self.variant = program.variant
        self.signature_defs = program.signature_defs
        self.signatures = {key: signature_of(value) for key, value in self.signature_defs.items()}
        self._program = program
        self._lock = threading.Lock()
        self._requests = 0
        self._retired: Callable[[], None] | None = None

    def acquire(self) -> bool:
        """Begin a request; return False if the version is retired."""
        with self._lock:
            if self._retired is not None:
                return False
            self._requests += 1
            return True

    def release(self) -> None:
        """End a request that `acquire` began."""
        with self._lock:
            self._requests -= 1
            on_idle = self._retired if self._requests == 0 else None
        if on_idle is not None:
            on_idle()  # without the lock: the callback may ask for `idle`

    def retire(self, on_idle: Callable[[], None]) -> None:
        """Refuse new requests.

        Args:
            on_idle: called once, when the last request has ended, in that request's thread.
        """
        with self._lock:
            self._retired = on_idle
            idle = self._requests == 0
        if idle:
            on_idle()

    @property
    def idle(self) -> bool:
        """True if it is retired and its last request has ended."""
        with self._lock:
            return self._retired is not None and self._requests == 0

    def close(self) -> None:
        """Free its memory. Call only if `idle`."""
        self._program.close()

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_s: float | None) -> list[Array]:
        """Run the version; arguments, result and errors are those of `Program.run`."""
        return self._program.run(feeds, fetches, timeout_s)
