"""Sign and verify releases: a node serves only what the holder of the signing key released.

An Ed25519 signature covers all fields of a Release that a node acts on: the model, its bundle, the node, and
the time of release. The node prevents replaying a release to another node, the time prevents replaying an old
one (`edge/models/releases/signature_check.py`); a rollback is signed again. Not signed are `metrics`, for
people, `temperature`, which a node only uses for the uncalibrated confidence, and `parts`, which can only
save bytes: the bundle has the signed digest, and its lists are next to the signed URL.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import structs

from bus.config import ConfigError
from schemas.messages import Release

PURPOSE = "gleaner/v1/release"
"""First element of the signed bytes, so that no signature made for another purpose is valid."""

SIGNED = ("node", "model", "version", "url", "sha256", "size_bytes", "classes", "released_at_ms")
"""Signed fields, in this order."""
SIGNED_LATER = ("stage", "share", "baseline")
"""Fields added later: signed together with their wire name, and only where they differ from their default. So
earlier signatures stay valid, and a node that does not know the field rejects a release that uses it."""
_UNTIL = "until: "
_END = "-----END PUBLIC KEY-----\n"
_FIELDS = {field.name: field for field in structs.fields(Release)}


def signed_bytes(release: Release) -> bytes:
    """Return the signed bytes: a JSON array of purpose and fields, ASCII, without spaces."""
    signed = [PURPOSE, *(getattr(release, name) for name in SIGNED)]
    for name in SIGNED_LATER:
        field, value = _FIELDS[name], getattr(release, name)
        if value != field.default:
            signed.append([field.encode_name, value])  # the wire name: a Python name may change
    return json.dumps(signed, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def sign(release: Release, key: Ed25519PrivateKey) -> Release:
    """Return the release with its signature."""
    return structs.replace(release, signature=key.sign(signed_bytes(release)).hex())


@dataclass(frozen=True, slots=True)
class ReleaseKey:
    """A public key whose signatures are accepted, until a time if a newer key replaces it."""

    key: Ed25519PublicKey
    until: datetime | None = None


def signature_error(release: Release, key: Ed25519PublicKey) -> str | None:
    """Return why a release's signature is not valid, None if it is."""
    if release.signature is None:
        return "the release is not signed"
    try:
        # fromhex raises ValueError for text that is not hexadecimal.
        key.verify(bytes.fromhex(release.signature), signed_bytes(release))
    except (InvalidSignature, ValueError):
        return "the signature does not belong to this release and the node's release key"
    return None


def new_signing_key() -> bytes:
    """Return a new private key for signing, as PEM."""
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def release_key(signing_key: Ed25519PrivateKey, until: datetime | None = None) -> bytes:
    """Return the public key for verifying, as PEM; edge nodes get it.

    Args:
        signing_key: The private key.
        until: When nodes stop accepting it, in a line before the key; None: never.
    """
    line = (
        b"" if until is None else f"{_UNTIL}{until.astimezone(UTC).isoformat(timespec='seconds')}\n".encode()
    )
    return line + signing_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def read_signing_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key for signing.

    Raises:
        ConfigError: The file is missing or is not an unencrypted Ed25519 key.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _unusable(path, "private", error) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _unusable(path, "private", type(key).__name__)
    return key


def read_release_keys(path: Path) -> list[ReleaseKey]:
    """Read the public keys for verifying: one, or with a line `until:` before it one that ends.

    Raises:
        ConfigError: The file is missing or is not of Ed25519 keys.
    """
    try:
        *parts, rest = path.read_bytes().decode("ascii").split(_END)
        if not parts or rest.strip():  # what is behind the last key would be a damaged key
            raise _unusable(path, "public", "no PEM" if not parts else "bytes behind it")
        return [_release_key(path, part + _END) for part in parts]
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise _unusable(path, "public", error) from None


def _release_key(path: Path, text: str) -> ReleaseKey:
    times = [line.removeprefix(_UNTIL) for line in text.splitlines() if line.startswith(_UNTIL)]
    key = serialization.load_pem_public_key(text.encode())
    if not isinstance(key, Ed25519PublicKey):
        raise _unusable(path, "public", type(key).__name__)
    return ReleaseKey(key, datetime.fromisoformat(times[0]) if times else None)


def _unusable(path: Path, side: str, got: object) -> ConfigError:
    return ConfigError(f"key {path}", expected=f"an unencrypted Ed25519 {side} key in PEM", got=got)
