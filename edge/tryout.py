"""Whether a version that was placed can be served: it loads, and gives a probability for each class."""

import asyncio
import time

from edge.results import scored
from edge.tfserving import ModelUnavailableError, ModelUnfitError, Predictor
from schemas.messages import Release

LOOK_S = 3.0
"""A model server has looked at its folder again after this, in seconds."""

_POLL_S = 0.1


async def try_out(
    predictor: Predictor, release: Release, timeout_s: float, *, alone: bool = True
) -> str | None:
    """Wait until a version serves, and return why it does not; None if it does. Safe to cancel.

    Args:
        predictor: The model server.
        release: Of the version; the answers have to fit its classes.
        timeout_s: For it to load.
        alone: It has to be the newest that serves.
    """
    began = time.monotonic()
    reason: str | None = "nothing"
    while reason is not None and (waited_s := time.monotonic() - began) < timeout_s:
        served = await predictor.served(release.version)
        # Before the server has looked again, a failure may be that of an earlier bundle of this number.
        if served.state == "failed" and waited_s > LOOK_S:
            return served.reason or served.state
        try:
            reason = served.reason or served.state
            if served.state == "available":
                reason = await _missing(predictor, release, alone=alone)
        except ModelUnfitError as error:
            return str(error)
        await asyncio.sleep(_POLL_S)
    return reason and f"{reason} after {timeout_s} s"


async def _missing(predictor: Predictor, release: Release, *, alone: bool) -> str | None:
    """Return what a version that is loaded still lacks to be in service, None if nothing.

    Raises:
        ModelUnfitError: It answers, but not for the classes of the release.
    """
    try:
        scored(release.model, await predictor.try_out(release.version), tuple(release.classes))
    except ModelUnavailableError as error:
        return str(error)
    newest = (await predictor.served()).version if alone else release.version
    return None if newest == release.version else f"version {newest} is still served"
