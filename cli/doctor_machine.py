"""Checks of `gleaner doctor` on this machine: free disk space, and when certificates expire."""

import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from bus.config import Tls
from bus.diagnosis.finding import Finding, failed, passed
from cli.configurations import Recognised
from cli.provision import EXPIRES_SOON
from schemas.distribution import install_command
from schemas.errors import PermanentError

_LEAST_FREE_BYTES = 500_000_000
_FOLDERS = ("state_dir", "models_dir", "models", "dataset")
_GIGA = 1e9


def machine_findings(found: Recognised, now: datetime) -> Iterator[Finding]:
    """Check the machine of a configuration.

    Args:
        found: The configuration of a service, or of a client, which has no folders.
        now: The present.
    """
    for field in _FOLDERS:
        value = getattr(found.value, field, None)
        if value is not None and "://" not in value:
            yield _disk(field, Path(value))
    if found.broker.tls is not None:
        yield from _certificates(found.broker.tls, now)


def _disk(field: str, folder: Path) -> Finding:
    try:
        existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        free = shutil.disk_usage(existing).free
    except OSError as error:  # the service's folders are private
        found = f"cannot look at {field} in {folder}: {error.strerror}"
        return failed("disk", found, "run 'gleaner doctor' as the user of the service, or as root")
    text = f"{free / _GIGA:.1f} GB free for {field} in {folder}"
    if free >= _LEAST_FREE_BYTES:
        return passed("disk", text)
    return failed("disk", text, "delete what is not needed: with too little space, new photos are refused")


def _certificates(tls: Tls, now: datetime) -> Iterator[Finding]:
    try:
        from bus.security.certificates import read  # noqa: PLC0415  # not on every machine
    except ImportError:
        yield passed("certificate", f"not checked; {install_command('provision')}")
        return
    for subject, path in (("CA", tls.ca), ("certificate", tls.certificate)):
        if path is None:
            continue
        try:
            facts = read(Path(path).read_bytes())
        except (OSError, ValueError, PermanentError) as error:
            yield failed(subject, f"cannot read {path}: {error}", "check tls in the configuration")
            continue
        yield Finding(
            facts.until - now > EXPIRES_SOON,
            subject,
            f"{facts.name}, until {facts.until:%Y-%m-%d}",
            "run 'gleaner provision SITE --renew' and copy it; 'gleaner provision SITE --list' shows all",
        )
