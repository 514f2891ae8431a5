"""Issue X.509 certificates for brokers and clients: functions from keys to PEM.

Keys are EC P-256, serial numbers are random (RFC 5280). A broker's certificate is only valid for servers, a
client's only for clients.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from schemas.errors import PermanentError

_CLOCK_SKEW = timedelta(days=1)  # a Raspberry Pi without a hardware clock may be late


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA: its certificate and private key, both PEM."""

    certificate: bytes
    key: bytes


def new_key() -> bytes:
    """Return a new private key as PEM."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def authority_certificate(key: bytes, name: str, *, days: float, now: datetime | None = None) -> bytes:
    """Return the self-signed certificate of a CA, valid for `days` from `now`."""
    builder = (
        _builder(key, name, days, now)
        .issuer_name(_name(name))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)  # signs no other CA
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return _signed(builder, key)


def broker_certificate(
    authority: Authority,
    key: bytes,
    name: str,
    hosts: Sequence[str],
    *,
    days: int,
    now: datetime | None = None,
) -> bytes:
    """Return a certificate for a broker.

    Args:
        authority: The CA that signs it.
        key: The broker's private key, PEM.
        name: Its common name.
        hosts: Host names and IP addresses under which clients connect.
        days: Validity in days.
        now: Start of the validity; the present time if None.
    """
    builder = _builder(key, name, days, now)
    builder = builder.add_extension(
        x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False
    )
    return _issued(builder, authority, ExtendedKeyUsageOID.SERVER_AUTH)


def client_certificate(
    authority: Authority, key: bytes, name: str, *, days: int, now: datetime | None = None
) -> bytes:
    """Return a certificate for a client, whose common name becomes its user name at the broker."""
    return _issued(_builder(key, name, days, now), authority, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass(frozen=True, slots=True)
class Facts:
    """The fields of a certificate.

    Args:
        name: Common name.
        serial: Serial number.
        key_id: Digest of its public key, hexadecimal; that of a CA is the `issuer_id` of what it signed.
        issuer_id: Digest of its issuer's public key, empty for a CA.
        until: When it expires, UTC.
    """

    name: str
    serial: int
    key_id: str
    issuer_id: str
    until: datetime


def read(certificate: bytes) -> Facts:
    """Return the fields of a certificate.

    Raises:
        PermanentError: The bytes are not a certificate in PEM.
    """
    try:
        loaded = x509.load_pem_x509_certificate(certificate)
    except ValueError as error:
        raise PermanentError("certificate", expected="PEM", got=_cause(error)) from None
    [common_name] = loaded.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Facts(
        str(common_name.value),
        loaded.serial_number,
        x509.SubjectKeyIdentifier.from_public_key(loaded.public_key()).digest.hex(),
        _issuer_id(loaded.extensions),
        loaded.not_valid_after_utc,
    )


def _cause(error: Exception) -> str:
    """Return the first part of a sentence of the library, whose second part is for programmers."""
    return str(error).partition(". See ")[0]


def key_id(key: bytes) -> str:
    """Return the digest of the public key of a private key, as in `Facts`."""
    return x509.SubjectKeyIdentifier.from_public_key(_load(key).public_key()).digest.hex()


def revocation_list(authority: Authority, serials: Iterable[int]) -> bytes:
    """Return a CA's list of revoked certificates, PEM; it is valid as long as the CA."""
    issuer, now = x509.load_pem_x509_certificate(authority.certificate), datetime.now(UTC)
    key = _load(authority.key)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now - _CLOCK_SKEW)
        # A list that is overdue would lock out everybody; a newer one takes effect when it is copied.
        .next_update(max(issuer.not_valid_after_utc, now))
        .add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - _CLOCK_SKEW)
        builder = builder.add_revoked_certificate(revoked.build())
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def revoked_serials(lists: bytes) -> dict[str, frozenset[int]]:
    """Return the revoked serial numbers in PEM lists by the `issuer_id` of their CA."""
    end = b"-----END X509 CRL-----\n"
    loaded = [x509.load_pem_x509_crl(part + end) for part in lists.split(end) if part.strip()]
    return {_issuer_id(one.extensions): frozenset(entry.serial_number for entry in one) for one in loaded}


def _issuer_id(extensions: x509.Extensions) -> str:
    try:
        issuer = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        return ""
    return (issuer or b"").hex()


def _builder(key: bytes, name: str, days: float, now: datetime | None) -> x509.CertificateBuilder:
    begin = now or datetime.now(UTC)
    public = _load(key).public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        # Issued before the present: a device whose clock is behind must accept it.
        .not_valid_before(begin - _CLOCK_SKEW)
        .not_valid_after(begin + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _issued(builder: x509.CertificateBuilder, authority: Authority, purpose: x509.ObjectIdentifier) -> bytes:
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    builder = (
        builder.issuer_name(issuer.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(_load(authority.key).public_key()),
            critical=False,
        )
    )
    return _signed(builder, authority.key)


def _signed(builder: x509.CertificateBuilder, key: bytes) -> bytes:
    return builder.sign(_load(key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _load(key: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PermanentError("private key", expected="unencrypted PEM", got=_cause(error)) from None
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise PermanentError("private key", expected="an elliptic curve", got=type(private).__name__)
    return private


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,  # all that TLS needs with elliptic curves
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
