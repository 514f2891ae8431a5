"""Retry as a value: an iterator of delays. Only what owns a peer retries."""

import random
from collections.abc import Iterator


def backoff(
    first_s: float = 0.5, cap_s: float = 60.0, *, draw: random.Random | None = None
) -> Iterator[float]:
    """Yield delays without end: a ceiling that doubles up to the cap, each delay drawn below it.

    Args:
        first_s: First ceiling, in seconds.
        cap_s: Highest ceiling, in seconds.
        draw: Source of randomness; the system's if left out.

    Source: "full jitter" of Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015.
    """
    uniform = (draw or random).uniform
    ceiling_s = min(first_s, cap_s)
    while True:
        yield uniform(0, ceiling_s)
        ceiling_s = min(ceiling_s * 2, cap_s)


def resend_delay(attempt: int, *, first_s: float, cap_s: float, draw: random.Random | None = None) -> float:
    """Return how long to wait for an answer before sending again, in seconds.

    Unlike `backoff` it never goes below half its ceiling, because an answer needs its time.

    Args:
        attempt: How often it was sent, 1 or more.
        first_s: Ceiling after the first sending.
        cap_s: Highest ceiling.
        draw: Source of randomness; the system's if left out.
    """
    doublings = min(attempt - 1, 32)
    ceiling_s = min(first_s * 2**doublings, cap_s)
    return (draw or random).uniform(ceiling_s / 2, ceiling_s)
