"""Signed releases: a node serves what the holder of one key released, whoever else can publish.

Ed25519 signs everything in a Release that a node acts on: the model, its bytes, where they are, the node, and
when it was released. With the node in it, what was released to one cannot be played to another; with the
time, an old release cannot be replayed (`edge/models/signature_check.py`); a rollback is signed again.
`metrics` are for people, `temperature` tells only how sure the model was without it; they are not signed.
"""

import json
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import structs

from bus.config import ConfigError
from schemas.messages import Release

PURPOSE = "gleaner/v1/release"
"""Stands first in what is signed, so that no signature made for something else fits."""

SIGNED = ("node", "model", "version", "url", "sha256", "size_bytes", "classes", "released_at_ms")
"""The fields that are signed, in this order."""
SIGNED_LATER = ("stage", "share", "baseline")
"""Fields added later: signed together with their wire name, and only where they differ from their default. So
earlier signatures stay valid, and a node that does not know the field rejects a release that uses it."""
_FIELDS = {field.name: field for field in structs.fields(Release)}


def signed_bytes(release: Release) -> bytes:
    """Return what a signature covers: a JSON array of the purpose and the fields, ASCII, without spaces."""
    signed = [PURPOSE, *(getattr(release, name) for name in SIGNED)]
    for name in SIGNED_LATER:
        field, value = _FIELDS[name], getattr(release, name)
        if value != field.default:
            signed.append([field.encode_name, value])  # the wire name: a Python name may change
    return json.dumps(signed, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def sign(release: Release, key: Ed25519PrivateKey) -> Release:
    """Return the release with its signature."""
    return structs.replace(release, signature=key.sign(signed_bytes(release)).hex())


def signature_error(release: Release, key: Ed25519PublicKey) -> str | None:
    """Return what is wrong with a release's signature, None if it is good."""
    if release.signature is None:
        return "expected a signature, got none"
    try:
        key.verify(bytes.fromhex(release.signature), signed_bytes(release))
    except (InvalidSignature, ValueError):
        return "expected a signature that fits the release and the node's release key, got another"
    return None


def new_signing_key() -> bytes:
    """Return a new key to sign with, as PEM."""
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def release_key(signing_key: Ed25519PrivateKey) -> bytes:
    """Return the key to verify with, as PEM: what the edge nodes get."""
    return signing_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def read_signing_key(path: Path) -> Ed25519PrivateKey:
    """Read the key to sign with.

    Raises:
        ConfigError: No such file, or no unencrypted Ed25519 key.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _unusable(path, "private", error) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _unusable(path, "private", type(key).__name__)
    return key


def read_release_key(path: Path) -> Ed25519PublicKey:
    """Read the key to verify with.

    Raises:
        ConfigError: No such file, or no Ed25519 key.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise _unusable(path, "public", error) from None
    if not isinstance(key, Ed25519PublicKey):
        raise _unusable(path, "public", type(key).__name__)
    return key


def _unusable(path: Path, side: str, got: object) -> ConfigError:
    return ConfigError(f"key {path}", expected=f"an unencrypted Ed25519 {side} key in PEM", got=got)
