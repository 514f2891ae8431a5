"""Whether a version that was placed can be served: it loads, and gives a probability for each class."""

import asyncio
import time

from edge.serving.client import ModelMissingError, ModelUnavailableError, ModelUnfitError, Predictor
from edge.serving.prediction import to_predictions
from schemas.messages import Release

LOOK_S = 3.0
"""A model server has looked at its folder again after this, in seconds."""

LOADS = 3
"""If the model server goes away after so many loads of a version, the version is to blame."""

_POLL_S = 0.1


async def try_out(predictor: Predictor, release: Release, timeout_s: float) -> str | None:
    """Wait until a version is the newest that serves, and return why not; None if it is. Safe to cancel.

    A model server that goes away meanwhile finds the version when it is back, and has its time to load it
    again. One that goes away again and again does so because of the version.

    Args:
        predictor: The model server.
        release: Of the version; the answers have to fit its classes.
        timeout_s: For it to load.
    """
    reason = None
    for _ in range(LOADS):
        try:
            return await try_out_once(predictor, release, timeout_s, alone=True)
        except ModelMissingError as error:
            reason = f"a model server that went away {LOADS} times: {error.got}"
    return reason


async def try_out_once(
    predictor: Predictor, release: Release, timeout_s: float, *, alone: bool
) -> str | None:
    """Do the same as long as the model server stays.

    Args:
        predictor: The model server.
        release: Of the version.
        timeout_s: For it to load.
        alone: It has to be the newest that serves; if not, the server was told to serve it beside another.

    Raises:
        ModelMissingError: The server went away, and with it what it was told.
    """
    began = time.monotonic()
    reason: str | None = "nothing"
    known = False
    while reason is not None and (waited_s := time.monotonic() - began) < timeout_s:
        served = await predictor.served(release.version)
        if served.state != "absent":
            known = True
        # It may go away before it has looked for the version; then only its answers about others tell.
        elif known or not (alone or (await predictor.served()).state == "available"):
            raise ModelMissingError(
                f"model {release.model} version {release.version}",
                expected="a model server that keeps it",
                got=served.reason,
            )
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
        to_predictions(release.model, await predictor.smoke_test(release.version), tuple(release.classes))
    except ModelUnavailableError as error:
        return str(error)
    newest = (await predictor.served()).version if alone else release.version
    return None if newest == release.version else f"version {newest} is still served"
