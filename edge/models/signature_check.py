"""Verify release signatures and reject replays."""

from collections.abc import Iterable
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bus.security import signing
from schemas.messages import Release

log = structlog.get_logger()


class SignatureVerifier:
    """Accepts releases that the holder of one key signed, and none older than the newest accepted one.

    Args:
        key: Path of the public release key; None accepts every release.
    """

    def __init__(self, key: str | None) -> None:
        self._path = key
        self._key: Ed25519PublicKey | None = None
        self._newest_ms = 0

    def load(self, installed: Iterable[Release]) -> None:
        """Read the key; call once, before the first `rejection`.

        Args:
            installed: Releases that earlier runs installed; the newest one is the limit against replays.

        Raises:
            ConfigError: The key cannot be used.
        """
        if self._path is None:
            log.warning("release.unverified", reason="no release_key: everyone who can publish can release")
            return
        key = self._key = signing.read_release_key(Path(self._path))
        # A run without a key may have recorded unsigned releases; their times prove nothing.
        signed = (release for release in installed if signing.signature_error(release, key) is None)
        self._newest_ms = max((release.released_at_ms for release in signed), default=0)

    def rejection(self, release: Release) -> str | None:
        """Return why a release is rejected; None accepts it, and older ones are rejected from then on."""
        if self._key is None:
            return None
        if (fault := signing.signature_error(release, self._key)) is not None:
            return fault
        # Only now: a forged time must not raise the limit. Equal times pass, as each restart delivers the
        # retained release again.
        if release.released_at_ms < self._newest_ms:
            return (
                f"release was signed at {release.released_at_ms} ms, before the newest accepted one of "
                f"{self._newest_ms} ms; to return to an old version, sign it again"
            )
        self._newest_ms = release.released_at_ms
        return None
