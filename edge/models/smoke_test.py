"""Smoke-test a version: it loads, and answers one image with a probability for each class."""

import asyncio
import time

from edge.serving.client import ModelMissingError, ModelOutputError, ModelUnavailableError, Predictor
from edge.serving.prediction import to_predictions
from schemas.groups.heads import GroupHeads
from schemas.messages import Release, ServedModel

LOAD_TIMEOUT_S = 120.0
"""Time for a version to load, in seconds."""

RESCAN_S = 3.0
"""Time after which the model server has read its folder again, in seconds."""

_POLL_S = 0.1


async def smoke_test(
    predictor: Predictor, release: Release, *, alone: bool, heads: GroupHeads | None = None
) -> str | None:
    """Wait until a version serves, and return why it does not; None if it does. Safe to cancel.

    Args:
        predictor: The model server.
        release: The version's release; the answers have to fit its classes.
        alone: True if the version has to be the newest that is served; False if the server was configured to
            serve two versions.
        heads: Of groups, which have to fit the outputs.

    Raises:
        ModelMissingError: The server went away and has lost the version, or its configuration.
    """
    started = time.monotonic()
    problem: str | None = "no status"
    seen = False
    while (waited_s := time.monotonic() - started) < LOAD_TIMEOUT_S:
        status = await predictor.model_status(release.version)
        if status.state != "absent":
            seen = True
        elif seen or (not alone and not await _is_up(predictor)):
            raise ModelMissingError(
                f"the model server lost model {release.model} version {release.version}: {status.reason}"
            )
        # Until the server has read its folder again, the failure may be that of an earlier bundle with the
        # same number.
        if status.state == "failed" and waited_s > RESCAN_S:
            return status.reason or status.state
        try:
            problem = await _problem(predictor, release, status, alone=alone, heads=heads)
        except ModelOutputError as error:
            return str(error)
        if problem is None:
            return None
        await asyncio.sleep(_POLL_S)
    return f"{problem} after {LOAD_TIMEOUT_S} s"


async def _is_up(predictor: Predictor) -> bool:
    """Return True if the server serves any version.

    A server that is up and does not know the version may not have read the folder yet.
    """
    return (await predictor.model_status()).state == "available"


async def _problem(
    predictor: Predictor, release: Release, status: ServedModel, *, alone: bool, heads: GroupHeads | None
) -> str | None:
    """Return why a version does not serve yet, None if it does.

    Raises:
        ModelOutputError: It answers, but not for the classes of the release or its heads.
    """
    if status.state != "available":
        return status.reason or status.state
    try:
        output = await predictor.smoke_test(release.version)
    except ModelUnavailableError as error:
        return str(error)
    to_predictions(release.model, output, tuple(release.classes))  # raises unless the widths agree
    if heads is not None and heads.dim * 4 != len(output.embeddings[0]):
        raise ModelOutputError(
            f"heads of groups of version {release.version}",
            expected=f"embeddings of {len(output.embeddings[0]) // 4} numbers, as the model gives them",
            got=heads.dim,
        )
    newest = (await predictor.model_status()).version if alone else release.version
    return None if newest == release.version else f"version {newest} is still served"
