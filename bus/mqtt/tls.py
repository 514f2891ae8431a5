"""TLS to the broker: the context from a configuration, and what OpenSSL's refusals mean in words."""

import re
import ssl

from bus.config import ConfigError, Tls

_MEANINGS = {
    "CERTIFICATE_VERIFY_FAILED": "the broker's certificate does not prove it to be that host (option --ca)",
    "ALERT_UNKNOWN_CA": "the authority of that port did not sign our certificate",
    "ALERT_DECRYPT_ERROR": "the authority of that port did not sign our certificate",
    "ALERT_CERTIFICATE_REQUIRED": "the broker demands a certificate (options --cert and --key)",
    "ALERT_HANDSHAKE_FAILURE": "the broker demands a certificate, or other TLS",
    "ALERT_CERTIFICATE_EXPIRED": "our certificate has expired (`gleaner provision --renew`)",
    "ALERT_UNSUPPORTED_CERTIFICATE": "our certificate is not for clients",
    "ALERT_PROTOCOL_VERSION": "the broker speaks no version of TLS that we do",
    "WRONG_VERSION_NUMBER": "that port does not speak TLS",
}
_PLACE_IN_SOURCE = re.compile(r" \(_ssl\.c:\d+\)")


def context(tls: Tls) -> ssl.SSLContext:
    """Return the context of a configuration. Reads its files, so that a renewed certificate counts.

    Raises:
        ConfigError: A file is missing, is no PEM, or the key belongs to another certificate.
    """
    try:
        made = ssl.create_default_context(cafile=tls.ca)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(f"authority {tls.ca}", expected="certificates in PEM", got=_reason(error)) from None
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.certificate is not None:
        try:
            # Without a password OpenSSL would ask the terminal for that of an encrypted key.
            made.load_cert_chain(tls.certificate, tls.key, password="")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"certificate {tls.certificate} with key {tls.key or 'in it'}",
                expected="a certificate and its own unencrypted key in PEM",
                got=_reason(error),
            ) from None
    return made


def meaning(error: BaseException) -> str:
    """Return what an error says, behind what a refusal of OpenSSL means in words."""
    said = _PLACE_IN_SOURCE.sub("", str(error))
    words = next((words for sign, words in _MEANINGS.items() if sign in said), None)
    return said if words is None else f"{words}: {said}"


def refusal(said: str) -> str:
    """Return what to say of a connection that was closed before the broker answered.

    Args:
        said: What paho logged of it; empty if nothing.
    """
    reason = said.removeprefix("failed to receive on socket: ")
    return (
        reason if "[SSL: " in reason else f"closed before an answer (TLS on one side alone?) {reason}".strip()
    )


def _reason(error: Exception) -> str:
    return _PLACE_IN_SOURCE.sub("", getattr(error, "strerror", None) or str(error))
