"""A worker of a distributed training that says what it embeds, and may be killed in the middle.

    python -m tests.cloud.worker [--killed] cloud train …

It embeds two photos per batch, so that a few photos are several batches.
"""

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from cloud.training import embeddings

EMBEDS = "embeds"
"""First word of a line with the number of photos that a call computes."""
_PHOTOS_PER_BATCH = 2
_KILLED = "--killed"
_real = embeddings._batches


def _batches(examples: Any, *others: Any) -> Iterator[Any]:
    sys.stdout.write(f"{EMBEDS} {len(examples)}\n")
    sys.stdout.flush()
    for batch in _real(examples, *others):
        yield batch
        # The batch is in the cache: its transaction ended before the next one was asked for.
        if _KILLED in sys.argv:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    embeddings.BATCH_PHOTOS = _PHOTOS_PER_BATCH
    embeddings._batches = _batches  # type: ignore[assignment]  # takes any arguments
    from cli.main import main

    sys.exit(main([word for word in sys.argv[1:] if word != _KILLED]))
