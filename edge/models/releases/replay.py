"""Decide which signed releases are replays. No I/O, no clock.

The time in a release orders it only as far as this node's clock confirms that time: a signer whose clock is
ahead must not lock out every later release. Such a release is accepted and remembered by its signature; once
another one follows it, it is refused.
"""

from msgspec import Struct

from schemas.messages import Release

TOLERANCE_MS = 600_000
"""How far the signer's clock may be ahead of ours, in milliseconds, before its time is not believed."""

_MOST_REPLACED = 64


Identity = tuple[int, str | None]
"""Time and signature of a release."""


class Accepted(Struct, frozen=True, kw_only=True):
    """The releases that a node accepted so far; kept on disk.

    Args:
        limit_ms: The newest confirmed time; an older release is a replay.
        in_force: The newest accepted release.
        replaced: Earlier ones that are not older than the limit.
    """

    limit_ms: int = 0
    in_force: Identity | None = None
    replaced: tuple[Identity, ...] = ()


def rejection(accepted: Accepted, release: Release) -> str | None:
    """Return why a release is a replay, None if it is not. Its signature is valid."""
    # Equal times pass, as each restart delivers the retained release again.
    if release.released_at_ms < accepted.limit_ms:
        return (
            f"release was signed at {release.released_at_ms} ms, before the newest accepted one of "
            f"{accepted.limit_ms} ms; to return to an old version, sign it again"
        )
    if _identity(release) in accepted.replaced:
        return "release was replaced by a later one; to return to it, sign it again"
    return None


def accept(accepted: Accepted, release: Release, now_ms: int) -> Accepted:
    """Return what is accepted after a release.

    Args:
        accepted: Before it.
        release: Not a replay, with a valid signature.
        now_ms: When it arrived, by this node's clock.
    """
    limit_ms = accepted.limit_ms
    if is_confirmed(accepted, release, now_ms):
        limit_ms = max(limit_ms, release.released_at_ms)
    replaced = accepted.replaced
    if accepted.in_force is not None and accepted.in_force != _identity(release):
        replaced = (*replaced, accepted.in_force)
    replaced = tuple(each for each in replaced if each[0] >= limit_ms)  # the limit refuses all others
    return Accepted(limit_ms=limit_ms, in_force=_identity(release), replaced=replaced[-_MOST_REPLACED:])


def is_confirmed(accepted: Accepted, release: Release, now_ms: int) -> bool:
    """Return True if the time of a release is not later than this node's clock or its limit allow."""
    # The limit: a clock that was set back does not take back what it confirmed before.
    return release.released_at_ms <= max(now_ms, accepted.limit_ms) + TOLERANCE_MS


def _identity(release: Release) -> Identity:
    return release.released_at_ms, release.signature
