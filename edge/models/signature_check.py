"""Which releases a node believes: those that the holder of its release key signed, and no older one again."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bus.security import signing
from schemas.messages import Release

log = structlog.get_logger()


class Trust:
    """Decides about releases; without a key it believes them all.

    Args:
        key: Path of the release key.
        records: Folder of the releases that were taken so far.
    """

    def __init__(self, key: str | None, records: Path) -> None:
        self._path = key
        self._records = records
        self._key: Ed25519PublicKey | None = None
        self._newest_ms = 0

    def load(self) -> None:
        """Read the key and what was taken so far; call once, before the first decision.

        Raises:
            ConfigError: The key cannot be used.
        """
        if self._path is None:
            log.warning("releases.unverified", reason="no release_key: whoever can publish can release")
            return
        key = self._key = signing.read_release_key(Path(self._path))
        signed = (release for release in self._taken() if signing.signature_error(release, key) is None)
        self._newest_ms = max((release.released_at_ms for release in signed), default=0)

    def refusal(self, release: Release) -> str | None:
        """Return why a release is not believed; None if it is, and then no older one is from now on."""
        if self._key is None:
            return None
        if (fault := signing.signature_error(release, self._key)) is not None:
            return fault
        if release.released_at_ms < self._newest_ms:
            return (
                f"expected a release signed at {self._newest_ms} ms or later, got one of "
                f"{release.released_at_ms} ms (to go back, sign the old version anew)"
            )
        self._newest_ms = release.released_at_ms
        return None

    def _taken(self) -> Iterator[Release]:
        for path in self._records.glob("*.json"):
            try:
                yield msgspec.json.decode(path.read_bytes(), type=Release)
            except (OSError, msgspec.MsgspecError):  # half a record of another program; it says nothing
                continue
