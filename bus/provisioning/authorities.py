"""The keys in a site's `authority` folder: two CAs and the signing key, and how each is replaced.

A rotation makes a new key. The previous one is trusted until a stated time, which is in the files that
brokers, clients and nodes have: the previous CA gets a certificate that ends then, the previous release key a
line with that date. So the overlap ends even if nobody copies files later.

    ca.key, ca.pem                   CA of brokers, devices, edges and bridges
    operations.key, .pem             CA of the cloud's components and the operator
    ca.previous.key, .pem            before its rotation, until it ends
    signing.key                      signs releases
    signing.previous.key, .pem       before its rotation; public key with the time at which it ends
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Literal

from bus.config import ConfigError
from bus.provisioning.files import read_or_create, write
from bus.security import certificates, signing
from bus.security.certificates import Authority

AUTHORITY_DAYS = 3650
CAS = ("ca", "operations")
_SIGNING = "signing"

Rotated = Literal["authority", "signing"]


@dataclass(frozen=True, slots=True)
class Trust:
    """A CA of a site, and the one before it while that is still trusted."""

    current: Authority
    previous: Authority | None

    @property
    def all(self) -> tuple[Authority, ...]:
        """The CAs whose certificates are accepted, the current one first."""
        return (self.current,) if self.previous is None else (self.current, self.previous)

    @property
    def bundle(self) -> bytes:
        """Their certificates, PEM."""
        return b"".join(authority.certificate for authority in self.all)


@dataclass(frozen=True, slots=True)
class Authorities:
    """All that the authority folder holds: the CAs by name, and the release keys that nodes accept, PEM."""

    trusts: dict[str, Trust]
    release_keys: bytes

    @property
    def all(self) -> list[Authority]:
        """All CAs whose certificates are accepted."""
        return [one for trust in self.trusts.values() for one in trust.all]

    @property
    def key_ids(self) -> list[str]:
        """Their `issuer_id`s."""
        return [certificates.key_id(one.key) for one in self.all]


def open_authorities(folder: Path, *, create: bool) -> Authorities:
    """Return the authorities of a site; previous ones that have ended are deleted.

    Args:
        folder: The authority folder.
        create: Whether to make missing keys; not for an existing site, where no client could connect then.

    Raises:
        ConfigError: A key is missing.
    """
    if not create:
        for name in (*CAS, _SIGNING):
            if not (folder / f"{name}.key").exists():
                raise ConfigError(
                    f"site {folder.parent} has no authority/{name}.key",
                    hint="run where its authority folder is",
                )
    signing_path = folder / f"{_SIGNING}.key"
    read_or_create(signing_path, signing.new_signing_key)
    release_keys = signing.release_key(signing.read_signing_key(signing_path))
    previous = folder / f"{_SIGNING}.previous.pem"
    if previous.exists():
        if (signing.read_release_keys(previous)[0].until or datetime.now(UTC)) > datetime.now(UTC):
            release_keys += previous.read_bytes()
        else:
            _forget(folder, _SIGNING)
    return Authorities({name: _open_trust(folder, name) for name in CAS}, release_keys)


def rotate(folder: Path, what: Rotated, overlap_days: float) -> None:
    """Make a new key for the CAs or for signing; the previous one is trusted for `overlap` from now.

    Args:
        folder: The authority folder of an existing site.
        what: `authority` for both CAs, or `signing`.
        overlap_days: How long the previous key is trusted as well; 0: it ends now.

    Raises:
        ConfigError: The one before it is still trusted and would end early.
    """
    for name in CAS if what == "authority" else (_SIGNING,):
        previous_key = folder / f"{name}.previous.key"
        current = (folder / f"{name}.key").read_bytes()
        if overlap_days and previous_key.exists() and previous_key.read_bytes() != current:
            raise ConfigError(
                f"cannot rotate {what} again: the previous key of {name} is still trusted",
                hint="wait until it has ended, or pass --overlap 0, which ends all earlier keys now",
            )
        _forget(folder, name)
        # The previous files first: until the new key is written, they only repeat the current one.
        if overlap_days:
            write(previous_key, current)
            write(folder / f"{name}.previous.pem", _ending(folder, name, overlap_days))
        if name == _SIGNING:
            write(folder / f"{name}.key", signing.new_signing_key())
        else:
            _new_authority(folder, name)


def _ending(folder: Path, name: str, days: float) -> bytes:
    """Return what others get of a key that ends: its CA certificate, or its public key."""
    if name == _SIGNING:
        return signing.release_key(
            signing.read_signing_key(folder / f"{name}.key"), datetime.now(UTC) + timedelta(days=days)
        )
    current = _authority(folder, name)
    title = certificates.read(current.certificate).name
    return certificates.authority_certificate(current.key, title, days=days)


def _new_authority(folder: Path, name: str) -> None:
    """Replace a CA by one with another common name, so that a chain can never mix the two."""
    title = certificates.read((folder / f"{name}.pem").read_bytes()).name
    number = title.removeprefix(f"gleaner {name}").strip() or "1"
    key = certificates.new_key()
    made = certificates.authority_certificate(key, f"gleaner {name} {int(number) + 1}", days=AUTHORITY_DAYS)
    # Without its certificate a key gets a new one: a crash between the two lines leaves a working CA.
    (folder / f"{name}.pem").unlink()
    write(folder / f"{name}.key", key)
    write(folder / f"{name}.pem", made)


def _open_trust(folder: Path, name: str) -> Trust:
    previous = None
    if (folder / f"{name}.previous.pem").exists():
        previous = _authority(folder, f"{name}.previous")
        if certificates.read(previous.certificate).until <= datetime.now(UTC):
            _forget(folder, name)
            previous = None
    return Trust(_authority(folder, name), previous)


def _authority(folder: Path, name: str) -> Authority:
    key = read_or_create(folder / f"{name}.key", certificates.new_key)
    make = partial(certificates.authority_certificate, key, f"gleaner {name}", days=AUTHORITY_DAYS)
    return Authority(read_or_create(folder / f"{name}.pem", make), key)


def _forget(folder: Path, name: str) -> None:
    for suffix in ("key", "pem"):
        (folder / f"{name}.previous.{suffix}").unlink(missing_ok=True)
