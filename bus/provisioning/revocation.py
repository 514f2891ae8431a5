"""Which certificates of a site are no longer valid, from the record of all that were issued.

A certificate is valid while its name is in the site and its key is the one that the site has for that name.
Every other one is revoked until it expires: of removed devices, and of keys that were replaced.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from bus.config import ConfigError
from bus.provisioning.files import write
from bus.security import certificates
from bus.security.certificates import Authority
from schemas.errors import DECODE_ERRORS, PermanentError

ISSUED = "issued.json"
REVOKED = "revoked.crl"


class Record(Struct, frozen=True):
    """A certificate that was issued; the fields are those of `certificates.Facts`."""

    name: str
    serial: str  # 160 bits: more than a number of JSON can have
    key_id: str
    issuer_id: str
    until: datetime


def record_issued(directory: Path, issuer_ids: Iterable[str]) -> list[Record]:
    """Add the certificates in a site's folders to its record, and return all that have not expired.

    Run before any of them is replaced, this finds also those of sites whose earlier versions kept no record.

    Raises:
        ConfigError: The record cannot be read.
    """
    records = {(one.issuer_id, one.serial): one for one in _read(directory / ISSUED)}
    issuers = frozenset(issuer_ids)
    for path in directory.rglob("*.pem"):
        try:
            facts = certificates.read(path.read_bytes())
        except PermanentError:  # a release key
            continue
        if facts.issuer_id in issuers:  # else a CA, or a stranger's
            one = Record(facts.name, f"{facts.serial:x}", facts.key_id, facts.issuer_id, facts.until)
            records[one.issuer_id, one.serial] = one
    now = datetime.now(UTC)
    current = sorted(
        (one for one in records.values() if one.until > now), key=lambda one: (one.name, one.serial)
    )
    write(directory / ISSUED, msgspec.json.format(msgspec.json.encode(current), indent=2) + b"\n")
    return current


def revoked(records: Iterable[Record], valid: Mapping[str, str]) -> list[Record]:
    """Return the certificates that are no longer valid.

    Args:
        records: All that were issued.
        valid: The `key_id` of the current key by common name.
    """
    return [one for one in records if valid.get(one.name) != one.key_id]


def write_revocations(path: Path, authorities: Iterable[Authority], ended: Iterable[Record]) -> bytes:
    """Write the lists of revoked certificates, one of each CA, where they change; return them."""
    serials: dict[str, set[int]] = {}
    issuers = {certificates.read(one.certificate).key_id: one for one in authorities}
    for record in ended:
        serials.setdefault(record.issuer_id, set()).add(int(record.serial, 16))
    wanted = {issuer: frozenset(serials.get(issuer, ())) for issuer in issuers}
    if path.exists():
        existing = path.read_bytes()
        if certificates.revoked_serials(existing) == wanted:
            return existing
    lists = b"".join(certificates.revocation_list(issuers[one], sorted(wanted[one])) for one in wanted)
    write(path, lists)
    return lists


def _read(path: Path) -> list[Record]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Record])
    except FileNotFoundError:
        return []
    except (OSError, *DECODE_ERRORS) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
