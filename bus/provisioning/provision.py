"""Provisioning: the keys, certificates and configurations of a site, a folder for each machine.

    authority/             stays here: who can read it can become anybody
    cloud/                 the cloud's broker and components
    edges/{node}/          a node's broker, bridge and handler
    devices/{node}.{name}/ a device
    operator/              tools such as `gleaner tail`

Run again it adds what is missing and never replaces a key. The lists of rights and `mosquitto.conf` are
written anew each time; the TOML files never, because people edit them.
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

from bus.broker.mosquitto_conf import Access, Bridge, configuration, is_loopback
from bus.config import ConfigError, Tls
from bus.provisioning.site import Address, ClientFiles, Site, allowed_identities, client_files
from bus.security import acl, certificates, signing
from bus.security.certificates import Authority
from schemas.topics import CLOUD

SITE = "site.json"
_AUTHORITY_DAYS = 3650
_ANYWHERE = ("localhost", "127.0.0.1", "::1")
_DATA = "/var/lib/mosquitto"
_STATE = "/var/lib/gleaner"

Fields = dict[str, str | bool]


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate of the site: whose, where, until when, and whether this run made it."""

    name: str
    path: Path
    until: datetime
    done: Literal["new", "renewed", "kept"]


def read_site(directory: Path) -> Site | None:
    """Return what was provisioned in a directory, None if nothing was.

    Raises:
        ConfigError: Its record cannot be read.
    """
    path = directory / SITE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Site)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"site {path}", expected="what an earlier run wrote", got=error) from None


def provision(directory: Path, site: Site, *, days: int, renew: bool = False) -> list[Issued]:
    """Make everything that a site needs and that is not there.

    Args:
        directory: The site's.
        site: All of it.
        days: How long new certificates of brokers and clients are valid.
        renew: Make those certificates anew, for the keys that are there.

    Raises:
        ConfigError: Something there cannot be used, or the authority of the site is missing.
    """
    directory = directory.resolve()
    if days > _AUTHORITY_DAYS:
        raise ConfigError("certificates", expected=f"to last {_AUTHORITY_DAYS} days at most", got=days)
    try:
        keys = _keys(directory)
        _write(directory / SITE, msgspec.json.format(msgspec.json.encode(site), indent=2) + b"\n")
        return list(_Issuer(directory, site, *keys, days, renew).issue())
    except OSError as error:
        got = f"{error.filename}: {error.strerror}"
        raise ConfigError(f"site {directory}", expected="to be readable and writable", got=got) from None


def handlers_without_shares(directory: Path, site: Site) -> Iterator[Path]:
    """Yield the files of handlers that are to share their node's photos, and would take all of them."""
    for seat in client_files(site):
        who = seat.identity
        if who.kind == "edge" and site.edges[who.node].handlers > 1:
            path = directory / seat.folder / f"{seat.stem}.toml"
            with suppress(ValueError):  # no TOML: the handler itself says so
                if not tomllib.loads(path.read_text("utf-8")).get("shares", False):
                    yield path


def _keys(directory: Path) -> tuple[dict[str, Authority], bytes]:
    """Return the authorities and the release key, made for a new site and never for one that had others."""
    folder = directory / "authority"
    names = ("ca", "operations")
    if (directory / SITE).exists():
        for name in (*names, "signing"):
            if not (folder / f"{name}.key").exists():
                raise ConfigError(f"site {directory}", expected=f"authority/{name}.key", got="none")
    _keep(folder / "signing.key", signing.new_signing_key)
    signing_key = signing.read_signing_key(folder / "signing.key")
    return {name: _authority(folder, name) for name in names}, signing.release_key(signing_key)


def _authority(directory: Path, name: str) -> Authority:
    key = _keep(directory / f"{name}.key", certificates.new_key)
    make = partial(certificates.authority_certificate, key, f"gleaner {name}", days=_AUTHORITY_DAYS)
    return Authority(_keep(directory / f"{name}.pem", make), key)


@dataclass(frozen=True, slots=True)
class _Issuer:
    """Where the folders are made."""

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
        for seat in client_files(self.site):
            yield self._client(seat)

    def _broker(self, folder: str, node: str | None, place: Address) -> Issued:
        """Write what one mosquitto needs."""
        directory, home = self.directory / folder, self._home(folder)
        hosts = tuple(dict.fromkeys((place.host, *_ANYWHERE)))
        make = partial(certificates.broker_certificate, hosts=hosts)
        issued = self._certificate(directory / "broker", f"{node or CLOUD}.broker", "ca", make)
        _write(directory / "ca.pem", self.authorities["ca"].certificate)
        _write(directory / "operations.pem", self.authorities["operations"].certificate)
        _write(directory / "rights", acl.access_list(allowed_identities(self.site, node)).encode())
        cloud = self.site.cloud
        text = configuration(
            place.port,
            Path(_DATA) if self.site.home else _folder(directory / "data"),
            address=place.host if is_loopback(place.host) else "",
            access=Access(_tls(home, "broker"), f"{home}/operations.pem", f"{home}/rights"),
            bridge=Bridge(node, cloud.host, cloud.port, _tls(home, "bridge")) if node else None,
            user=None if self.site.home else _user(),
        )
        _write(directory / "mosquitto.conf", f"# Written anew by each gleaner provision.\n{text}".encode())
        return issued

    def _client(self, seat: ClientFiles) -> Issued:
        """Write what one client needs, and where it connects to."""
        directory, home = self.directory / seat.folder, self._home(seat.folder)
        issued = self._certificate(
            directory / seat.stem, seat.identity.common_name, seat.authority, certificates.client_certificate
        )
        _write(directory / "ca.pem", self.authorities["ca"].certificate)
        for stem, place, fields in self._configurations(seat):
            text = _toml(fields, place, seat.authority, _tls(home, seat.stem))
            _keep(directory / f"{stem}.toml", text.encode)
        return issued

    def _configurations(self, seat: ClientFiles) -> Iterator[tuple[str, Address, Fields]]:
        """Yield the TOML files of a client: name, broker, and the fields beside it."""
        who, cloud, edges = seat.identity, self.site.cloud, self.site.edges
        match who.kind:
            case "device":
                yield seat.stem, edges[who.node].broker, {"node": who.node, "name": who.name}
            case "edge":
                fields: Fields = {"node": who.node, "release_key": f"{self._home(seat.folder)}/release.pem"}
                if edges[who.node].handlers > 1:
                    fields |= {"name": who.name, "shares": True, "state_dir": f"{_STATE}/{who.name}"}
                yield seat.stem, edges[who.node].broker, fields
            case "operator":
                yield CLOUD, cloud, {}
                for node, edge in edges.items():
                    yield node, edge.broker, {}
            case "collector":
                yield seat.stem, cloud, {"name": who.name}
            case "trainer" | "rollout" | "gateway":
                yield seat.stem, cloud, {}
            case "bridge":
                return  # mosquitto.conf has it

    def _certificate(self, stem: Path, name: str, authority: str, make: Callable[..., bytes]) -> Issued:
        path, key_path = stem.with_name(f"{stem.name}.pem"), stem.with_name(f"{stem.name}.key")
        done: Literal["new", "renewed", "kept"] = "new"
        if path.exists() and key_path.exists():
            done = "renewed" if self.renew else "kept"
        key = _keep(key_path, certificates.new_key)
        if done != "kept":
            _write(path, make(self.authorities[authority], key, name, days=self.days))
        return Issued(name, path, certificates.expiry(path.read_bytes()), done)

    def _home(self, folder: str) -> str:
        """Return where a folder will be used; the operator's stays."""
        return self.site.home if self.site.home and folder != "operator" else str(self.directory / folder)


def _tls(home: str, stem: str) -> Tls:
    return Tls(ca=f"{home}/ca.pem", certificate=f"{home}/{stem}.pem", key=f"{home}/{stem}.key")


def _toml(fields: Fields, place: Address, authority: str, tls: Tls) -> str:
    """Return the configuration of a component."""
    port = place.port if authority == "ca" else place.port + 1
    lines = [f"{name} = {_quoted(value)}" for name, value in fields.items()]
    lines += ["", "[broker]", f"host = {_quoted(place.host)}", f"port = {port}", "", "[broker.tls]"]
    lines += [f"{name} = {_quoted(value)}" for name, value in msgspec.structs.asdict(tls).items()]
    return "\n".join(lines).strip() + "\n"


def _quoted(value: str | bool) -> str:  # noqa: FBT001  # a field's value
    return msgspec.json.encode(value).decode()  # as JSON has them TOML has them


def _user() -> str | None:
    """Return the user that owns what is made here, if it has a name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return None


def _folder(path: Path) -> Path:
    """Make a folder that its owner alone can enter, and those above it."""
    if not path.is_dir():
        _folder(path.parent)
        path.mkdir(mode=0o700)
    return path


def _keep(path: Path, make: Callable[[], bytes]) -> bytes:
    """Return what is in a file, made first if there is none."""
    if not path.exists():
        _write(path, make())
    return path.read_bytes()


def _write(path: Path, content: bytes) -> None:
    """Write a file that its owner alone can read, complete or not at all."""
    _folder(path.parent)
    partial_path = path.with_name(f"{path.name}.tmp")
    partial_path.unlink(missing_ok=True)
    with os.fdopen(os.open(partial_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial_path.rename(path)
