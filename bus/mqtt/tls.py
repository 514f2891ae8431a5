"""TLS to the broker and to our own servers: the SSL contexts, and explanations of OpenSSL's errors."""

import re
import ssl

from bus.config import ConfigError, Tls

# Names in OpenSSL's error texts; the first that occurs in a text is used.
_EXPLANATIONS = {
    "certificate revoked": "the broker's certificate is revoked (tls.crl)",
    "unable to get certificate CRL": "tls.crl has no list of the CA that signed the broker's certificate",
    "CRL has expired": "the list of revoked certificates is overdue (tls.crl)",
    "CERTIFICATE_VERIFY_FAILED": "the broker's certificate is not valid for that host (option --ca)",
    "ALERT_UNKNOWN_CA": "our certificate is not signed by the CA of that port",
    "ALERT_DECRYPT_ERROR": "our certificate is not signed by the CA of that port",
    "ALERT_CERTIFICATE_REQUIRED": "the broker requires a client certificate (options --cert and --key)",
    "ALERT_HANDSHAKE_FAILURE": "the broker requires a client certificate, or other TLS settings",
    "ALERT_CERTIFICATE_EXPIRED": "our certificate has expired (`gleaner provision --renew`)",
    "ALERT_UNSUPPORTED_CERTIFICATE": "our certificate is not a client certificate",
    "ALERT_PROTOCOL_VERSION": "the broker supports no TLS version that we support",
    "WRONG_VERSION_NUMBER": "that port does not use TLS",
}
_NUMBERS = re.compile(r" \(_ssl\.c:\d+\)|^\[Errno -?\d+\] ")
"""What OpenSSL adds to its sentence: a line of C, and the number of the error."""


def context(tls: Tls) -> ssl.SSLContext:
    """Return an SSL context from the files of a configuration.

    The files are read at each call, so that a renewed certificate takes effect with the next connection.

    Raises:
        ConfigError: A file is missing or not PEM, or the key does not belong to the certificate.
    """
    try:
        ssl_context = ssl.create_default_context(cafile=tls.ca)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise _bad_authority(tls.ca, error) from None
    # As the broker's; older versions are broken.
    ssl_context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.crl is not None:
        _check_revocation(ssl_context, tls.crl)
    if tls.certificate is not None:
        load_certificate(ssl_context, tls.certificate, tls.key)
    return ssl_context


def server_context(
    certificate: str, key: str | None, clients: str | None = None, crl: str | None = None
) -> ssl.SSLContext:
    """Return the SSL context of a server.

    Args:
        certificate: PEM file.
        key: PEM file of its key, None if it is in the same file.
        clients: PEM file of the CA by which clients have to have a certificate; None: they need none.
        crl: PEM file of the clients' certificates that are revoked, with a list of each CA.

    Raises:
        ConfigError: A file is missing or not PEM, or the key does not belong to the certificate.
    """
    ssl_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ssl_context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificate(ssl_context, certificate, key)
    if clients is not None:
        try:
            ssl_context.load_verify_locations(cafile=clients)
        except (OSError, ValueError) as error:
            raise _bad_authority(clients, error) from None
        ssl_context.verify_mode = ssl.CERT_REQUIRED
    if crl is not None:
        _check_revocation(ssl_context, crl)
    return ssl_context


def _bad_authority(ca: str, error: Exception) -> ConfigError:
    return ConfigError(f"CA file {ca}", expected="certificates in PEM", got=_reason(error))


def load_certificate(ssl_context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    """Present a certificate to peers.

    Args:
        ssl_context: Of a client or a server.
        certificate: PEM file.
        key: PEM file of its key, None if it is in the same file.

    Raises:
        ConfigError: A file is missing or not PEM, or the key does not belong to the certificate.
    """
    try:
        # Without a password, OpenSSL would prompt for that of an encrypted key on the terminal and hang.
        ssl_context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"certificate {certificate} with key {key or '(in the same file)'}",
            expected="a certificate and its own unencrypted key in PEM",
            got=_reason(error),
        ) from None


def _check_revocation(ssl_context: ssl.SSLContext, path: str) -> None:
    try:
        ssl_context.load_verify_locations(cafile=path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"file {path}", expected="revoked certificates in PEM", got=_reason(error)
        ) from None
    if not ssl_context.cert_store_stats()["crl"]:
        raise ConfigError(f"file {path}", expected="revoked certificates in PEM", got="no list of them")
    ssl_context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF


def explain(error: BaseException) -> str:
    """Return the text of an error, after an explanation if it is a known OpenSSL error."""
    text = _NUMBERS.sub("", str(error))
    explanation = next((words for name, words in _EXPLANATIONS.items() if name in text), None)
    return text if explanation is None else f"{explanation}: {text}"


def explain_refusal(logged: str) -> str:
    """Return why a connection was closed before the broker answered.

    Args:
        logged: The last error that paho logged; empty if none.
    """
    reason = logged.removeprefix("failed to receive on socket: ")
    if "[SSL: " in reason:
        return reason
    return f"the connection was closed before an answer (TLS on one side only?) {reason}".strip()


def _reason(error: Exception) -> str:
    return _NUMBERS.sub("", getattr(error, "strerror", None) or str(error))
