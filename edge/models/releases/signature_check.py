"""Verify release signatures and reject replays."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog

from bus.files.atomic_file import write_atomic
from bus.mqtt.presence import now_ms
from bus.security import signing
from bus.security.signing import ReleaseKey
from edge.models.releases import replay
from edge.models.releases.replay import Accepted
from schemas.errors import DECODE_ERRORS
from schemas.messages import Release

log = structlog.get_logger()


class SignatureVerifier:
    """Accepts releases that the holder of a release key signed, and none older than the newest accepted one.

    Args:
        key: Path of the public release keys; None accepts every release.
        state: File that remembers what was accepted; None for this run only.
    """

    def __init__(self, key: str | None, state: Path | None = None) -> None:
        self._path = key
        self._keys: list[ReleaseKey] = []
        self._state = state
        self._accepted = Accepted()

    def load(self, installed: Iterable[Release]) -> None:
        """Read the keys; call once, before the first `rejection`.

        Args:
            installed: Releases that earlier runs installed; the newest one is the limit against replays.

        Raises:
            ConfigError: A key cannot be used.
        """
        if self._path is None:
            log.warning("release.unverified", reason="no release_key: everyone who can publish can release")
            return
        self._keys = signing.read_release_keys(Path(self._path))
        # A run without a key may have recorded unsigned releases; their times prove nothing. That of
        # a release that was accepted before its key ended counts.
        signed = [release for release in installed if _signature_error(release, self._keys) is None]
        self._accepted = _read(self._state)
        for release in sorted(signed, key=lambda release: release.released_at_ms):
            # One that was replaced is not in force, however late its time.
            if replay.rejection(self._accepted, release) is None:
                self._accepted = replay.accept(self._accepted, release, now_ms())

    def rejection(self, release: Release) -> str | None:
        """Return why a release is rejected; None accepts it, and older ones are rejected from then on."""
        if not self._keys:
            return None
        if (fault := _signature_error(release, self._keys, datetime.now(UTC))) is not None:
            return fault
        # Only now: a forged time must not raise the limit.
        if (fault := replay.rejection(self._accepted, release)) is not None:
            return fault
        arrived_ms = now_ms()
        if not replay.is_confirmed(self._accepted, release, arrived_ms):
            ahead_s = (release.released_at_ms - arrived_ms) // 1000
            log.warning("release.signed_in_the_future", version=release.version, ahead_s=ahead_s)
        accepted = replay.accept(self._accepted, release, arrived_ms)
        if accepted != self._accepted:
            self._accepted = accepted
            self._write()
        return None

    def _write(self) -> None:
        if self._state is None:
            return
        try:
            write_atomic(self._state, msgspec.json.encode(self._accepted))
        except OSError as error:  # it still holds for this run
            log.error("release.state_not_written", path=str(self._state), reason=str(error))  # noqa: TRY400


def _read(state: Path | None) -> Accepted:
    """Return what earlier runs accepted; nothing if the file is missing or damaged."""
    if state is None:
        return Accepted()
    try:
        return msgspec.json.decode(state.read_bytes(), type=Accepted)
    except FileNotFoundError:
        return Accepted()
    except (OSError, *DECODE_ERRORS) as error:  # the installed releases still bound replays
        log.error("release.state_damaged", path=str(state), reason=str(error))  # noqa: TRY400
        return Accepted()


def _signature_error(release: Release, keys: Sequence[ReleaseKey], now: datetime | None = None) -> str | None:
    """Return why no key accepts a release's signature, None if one does; without `now` no key has ended."""
    fault: str | None = None
    for one in keys:
        if (fault := signing.signature_error(release, one.key)) is not None:
            continue
        if now is None or one.until is None or one.until > now:
            return None
        return f"the key that signed the release ended at {one.until}; sign it with the newer key"
    return fault
