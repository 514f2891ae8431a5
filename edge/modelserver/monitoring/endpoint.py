"""Serve the metrics over HTTP, in a separate thread."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from bus.health import HealthServer


@contextmanager
def serving(
    address: str, path: str, page: Callable[[], bytes], fail: Callable[[BaseException], None], stop_s: float
) -> Iterator[None]:
    """Serve the metrics while a block runs.

    Args:
        address: `HOST:PORT`.
        path: of the metrics.
        page: returns them; called in another thread.
        fail: called there with the error if the address cannot be bound.
        stop_s: seconds that the thread gets to end.
    """
    loop = asyncio.new_event_loop()
    server = loop.create_task(HealthServer(address, lambda: None, page, metrics_path=path).run())

    def run() -> None:
        try:
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(server)
        except Exception as error:  # noqa: BLE001 - its owner ends the process
            fail(error)

    thread = threading.Thread(target=run, name="modelserver.metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(server.cancel)
        thread.join(stop_s)
