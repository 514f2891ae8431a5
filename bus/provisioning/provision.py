"""Write the keys, certificates and configurations of a site: one folder for each machine.

    authority/             CA and signing keys; stays here, because its reader can become any client
    cloud/                 the cloud's broker and components
    edges/{node}/          a node's broker, bridge and handlers
    devices/{node}.{name}/ a device
    operator/              commands such as `gleaner tail`

Another run adds what is missing and never replaces a key. The files `rights` (ACL) and `mosquitto.conf` are
written again each time; TOML files are not, because people edit them.
"""

import os
import pwd
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from bus.atomic_file import write_atomic
from bus.broker.mosquitto_conf import Access, Bridge, configuration, is_loopback
from bus.config import ConfigError, Tls
from bus.provisioning.site import Address, ClientFiles, Site, allowed_identities, client_files
from bus.security import acl, certificates, signing
from bus.security.certificates import Authority
from schemas.topics import CLOUD

SITE = "site.json"
_AUTHORITY_DAYS = 3650
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_BROKER_DATA = "/var/lib/mosquitto"
_STATE = "/var/lib/gleaner"

Fields = dict[str, str | bool]


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate of the site: common name, path, expiry, and whether this run issued it."""

    name: str
    path: Path
    until: datetime
    done: Literal["new", "renewed", "kept"]


def read_site(directory: Path) -> Site | None:
    """Return the site that was provisioned in a directory, or None.

    Raises:
        ConfigError: `site.json` cannot be read or is invalid.
    """
    path = directory / SITE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Site)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None


def provision(directory: Path, site: Site, *, days: int, renew: bool = False) -> list[Issued]:
    """Write all files of a site that are missing.

    Args:
        directory: Folder of the site.
        site: Its complete description.
        days: Validity of new certificates for brokers and clients.
        renew: Issue all these certificates again, for the existing keys.

    Returns:
        All certificates of brokers and clients.

    Raises:
        ConfigError: An existing file is invalid, or a key of the authority is missing.
    """
    directory = directory.resolve()
    if days > _AUTHORITY_DAYS:
        raise ConfigError(
            f"certificates cannot be valid for {days} days: the CA is for {_AUTHORITY_DAYS} days at most"
        )
    try:
        # Keys first: once site.json exists, a missing key is an error.
        keys = _keys(directory)
        _write(directory / SITE, msgspec.json.format(msgspec.json.encode(site), indent=2) + b"\n")
        return list(_Issuer(directory, site, *keys, days, renew).issue())
    except OSError as error:
        raise ConfigError(f"cannot write site {directory}: {error.filename}: {error.strerror}") from None


def handlers_without_shares(directory: Path, site: Site) -> Iterator[Path]:
    """Yield the configurations of handlers that should share photos but lack `shares = true`.

    It would take all photos of its node, including those of the others.
    """
    for files in client_files(site):
        identity = files.identity
        if identity.kind == "edge" and site.edges[identity.node].handlers > 1:
            path = directory / files.folder / f"{files.stem}.toml"
            with suppress(ValueError):  # not valid TOML: the handler reports that when it starts
                if not tomllib.loads(path.read_text("utf-8")).get("shares", False):
                    yield path


def _keys(directory: Path) -> tuple[dict[str, Authority], bytes]:
    """Return the CAs and the public release key, created for a new site.

    For an existing site a missing key is an error: with a new CA no client could connect any more.
    """
    folder = directory / "authority"
    names = ("ca", "operations")
    if (directory / SITE).exists():
        for name in (*names, "signing"):
            if not (folder / f"{name}.key").exists():
                raise ConfigError(
                    f"site {directory} has no authority/{name}.key", hint="run where its authority folder is"
                )
    _read_or_create(folder / "signing.key", signing.new_signing_key)
    signing_key = signing.read_signing_key(folder / "signing.key")
    return {name: _authority(folder, name) for name in names}, signing.release_key(signing_key)


def _authority(directory: Path, name: str) -> Authority:
    key = _read_or_create(directory / f"{name}.key", certificates.new_key)
    make = partial(certificates.authority_certificate, key, f"gleaner {name}", days=_AUTHORITY_DAYS)
    return Authority(_read_or_create(directory / f"{name}.pem", make), key)


@dataclass(frozen=True, slots=True)
class _Issuer:
    """Writes the folders of the machines of a site."""

    directory: Path
    site: Site
    authorities: dict[str, Authority]
    release_key: bytes
    days: int
    renew: bool

    def issue(self) -> Iterator[Issued]:
        yield self._broker("cloud", None, self.site.cloud)
        for node, edge in self.site.edges.items():
            yield self._broker(f"edges/{node}", node, edge.broker)
            _write(self.directory / f"edges/{node}/release.pem", self.release_key)
        for files in client_files(self.site):
            yield self._client(files)

    def _broker(self, folder: str, node: str | None, address: Address) -> Issued:
        """Write the files of one mosquitto."""
        directory, home = self.directory / folder, self._home(folder)
        hosts = tuple(dict.fromkeys((address.host, *_LOCAL_HOSTS)))
        make = partial(certificates.broker_certificate, hosts=hosts)
        issued = self._certificate(directory / "broker", f"{node or CLOUD}.broker", "ca", make)
        _write(directory / "ca.pem", self.authorities["ca"].certificate)
        _write(directory / "operations.pem", self.authorities["operations"].certificate)
        _write(directory / "rights", acl.access_list(allowed_identities(self.site, node)).encode())
        cloud = self.site.cloud
        text = configuration(
            address.port,
            Path(_BROKER_DATA) if self.site.home else _make_folder(directory / "data"),
            # The host may be an address that this machine does not have, as behind NAT: listen on all.
            address=address.host if is_loopback(address.host) else "",
            access=Access(_tls(home, "broker"), f"{home}/operations.pem", f"{home}/rights"),
            bridge=Bridge(node, cloud.host, cloud.port, _tls(home, "bridge")) if node else None,
            user=None if self.site.home else _user(),
        )
        _write(directory / "mosquitto.conf", f"# Overwritten by each gleaner provision.\n{text}".encode())
        return issued

    def _client(self, files: ClientFiles) -> Issued:
        """Write key, certificate and configurations of one client."""
        directory, home = self.directory / files.folder, self._home(files.folder)
        issued = self._certificate(
            directory / files.stem,
            files.identity.common_name,
            files.authority,
            certificates.client_certificate,
        )
        _write(directory / "ca.pem", self.authorities["ca"].certificate)
        # Existing configurations are kept: people edit them.
        for stem, address, fields in self._configurations(files):
            text = _toml(fields, address, files.authority, _tls(home, files.stem))
            _read_or_create(directory / f"{stem}.toml", text.encode)
        return issued

    def _configurations(self, files: ClientFiles) -> Iterator[tuple[str, Address, Fields]]:
        """Yield the TOML files of a client: name, broker, and the fields outside `[broker]`."""
        identity, cloud, edges = files.identity, self.site.cloud, self.site.edges
        match identity.kind:
            case "device":
                yield files.stem, edges[identity.node].broker, {"node": identity.node, "name": identity.name}
            case "edge":
                release_key = f"{self._home(files.folder)}/release.pem"
                fields: Fields = {"node": identity.node, "release_key": release_key}
                # A single handler keeps the default name and state_dir, as in sites of earlier versions.
                if edges[identity.node].handlers > 1:
                    fields |= {
                        "name": identity.name,
                        "shares": True,
                        "state_dir": f"{_STATE}/{identity.name}",
                    }
                yield files.stem, edges[identity.node].broker, fields
            case "operator":
                yield CLOUD, cloud, {}
                for node, edge in edges.items():
                    yield node, edge.broker, {}
            case "collector":
                yield files.stem, cloud, {"name": identity.name}
            case "trainer" | "rollout" | "gateway":
                yield files.stem, cloud, {}
            case "bridge":
                return  # configured in mosquitto.conf

    def _certificate(self, stem: Path, name: str, authority: str, make: Callable[..., bytes]) -> Issued:
        path, key_path = stem.with_name(f"{stem.name}.pem"), stem.with_name(f"{stem.name}.key")
        done: Literal["new", "renewed", "kept"] = "new"
        if path.exists() and key_path.exists():  # a certificate without its key is useless: issue a new one
            done = "renewed" if self.renew else "kept"
        key = _read_or_create(key_path, certificates.new_key)
        if done != "kept":
            _write(path, make(self.authorities[authority], key, name, days=self.days))
        return Issued(name, path, certificates.expiry(path.read_bytes()), done)

    def _home(self, folder: str) -> str:
        """Return where a folder will be used; the operator's is used where it is written."""
        return self.site.home if self.site.home and folder != "operator" else str(self.directory / folder)


def _tls(home: str, stem: str) -> Tls:
    return Tls(ca=f"{home}/ca.pem", certificate=f"{home}/{stem}.pem", key=f"{home}/{stem}.key")


def _toml(fields: Fields, address: Address, authority: str, tls: Tls) -> str:
    """Return the configuration of a component."""
    port = address.port if authority == "ca" else address.port + 1
    lines = [f"{name} = {_toml_value(value)}" for name, value in fields.items()]
    lines += ["", "[broker]", f"host = {_toml_value(address.host)}", f"port = {port}", "", "[broker.tls]"]
    lines += [f"{name} = {_toml_value(value)}" for name, value in msgspec.structs.asdict(tls).items()]
    return "\n".join(lines).strip() + "\n"


def _toml_value(value: str | bool) -> str:  # noqa: FBT001  # the value of a field
    return msgspec.json.encode(value).decode()  # JSON strings and booleans are valid TOML


def _user() -> str | None:
    """Return the name of the present user, who owns the written files; None if it has none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return None


def _make_folder(path: Path) -> Path:
    """Create a folder and its parents with mode 0700."""
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(mode=0o700)
    return path


def _read_or_create(path: Path, make: Callable[[], bytes]) -> bytes:
    """Return the content of a file, which is created first if it does not exist."""
    if not path.exists():
        _write(path, make())
    return path.read_bytes()


def _write(path: Path, content: bytes) -> None:
    """Write a file with mode 0600, complete or not at all."""
    _make_folder(path.parent)  # write_atomic would create it with the default mode
    write_atomic(path, content, mode=0o600)
