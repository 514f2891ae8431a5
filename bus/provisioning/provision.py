"""Write the keys, certificates and configurations of a site: one folder for each machine.

    authority/             CA and signing keys; stays here, because its reader can become any client
    cloud/                 the cloud's broker and components
    edges/{node}/          a node's broker, bridge and handlers
    devices/{node}.{name}/ a device
    mirrors/{host}/        a mirror of bundles
    operator/              commands such as `gleaner tail`

Another run adds what is missing, and replaces a key only on request. `rights` (ACL), `revoked.crl` and
`mosquitto.conf` are written again where they change; TOML files are not, because people edit them.
"""

import codecs
import os
import pwd
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from bus.broker.mosquitto_conf import Access, Bridge, configuration, is_loopback
from bus.config import ConfigError, Tls
from bus.provisioning.authorities import AUTHORITY_DAYS, CAS, Authorities, Trust, open_authorities
from bus.provisioning.files import make_folder, read_or_create, write
from bus.provisioning.revocation import REVOKED, record_issued, revoked, write_revocations
from bus.provisioning.site import MIRROR, Address, ClientFiles, Site, allowed_identities, client_files
from bus.security import acl, certificates
from schemas.errors import DECODE_ERRORS, PermanentError
from schemas.topics import CLOUD, HANDLERS

SITE = "site.json"
AUTHORITY = "authority"
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_BROKER_DATA = "/var/lib/mosquitto"
_STATE = "/var/lib/gleaner"

_UNKNOWN = re.compile(r"unknown field `([^`]*)`")

Fields = dict[str, str | bool]


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate of the site: common name, path, expiry, and whether this run issued it."""

    name: str
    path: Path
    until: datetime
    done: Literal["new", "renewed", "kept", "authority"]


def read_site(directory: Path) -> Site | None:
    """Return the site that was provisioned in a directory, or None.

    Raises:
        ConfigError: `site.json` cannot be read or is invalid, or uses what only a newer version knows.
    """
    path = directory / SITE
    try:
        return msgspec.json.decode(path.read_bytes().removeprefix(codecs.BOM_UTF8), type=Site)
    except FileNotFoundError:
        return None
    except (OSError, *DECODE_ERRORS) as error:
        if (unknown := _UNKNOWN.search(str(error))) is not None:
            # Not ignored: this version would write the site without it, and revoke its certificates.
            raise ConfigError(
                f"{path} has the field {unknown[1]!r}, which this version of Gleaner does not know",
                hint="use the version that wrote it; what is provisioned works with this one",
            ) from None
        raise ConfigError(f"cannot read {path}: {error}") from None


def provision(
    directory: Path, site: Site, *, days: int, renew: bool = False, replace: Collection[str] = ()
) -> list[Issued]:
    """Write all files of a site that are missing, and revoke what the site no longer has.

    Args:
        directory: Folder of the site.
        site: Its complete description.
        days: Validity of new certificates for brokers and clients.
        renew: Issue all these certificates again, for the existing keys.
        replace: Common names that get a new key; the certificates of their present keys are revoked.

    Returns:
        All certificates of brokers and clients.

    Raises:
        ConfigError: An existing file is invalid, or a key of the authority is missing.
    """
    directory = directory.resolve()
    if not str(directory).isprintable():  # configurations contain it, and TOML is UTF-8
        raise ConfigError(
            f"cannot provision {directory}: its path is not printable", hint="choose another folder"
        )
    if days > AUTHORITY_DAYS:
        raise ConfigError(
            f"certificates cannot be valid for {days} days: the CA is for {AUTHORITY_DAYS} days at most"
        )
    try:
        # Keys first: once site.json exists, a missing key is an error.
        authorities = open_authorities(directory / AUTHORITY, create=not (directory / SITE).exists())
        record_issued(directory, authorities.key_ids)  # before a key or a certificate is replaced
        write(directory / SITE, msgspec.json.format(msgspec.json.encode(site), indent=2) + b"\n")
        issued = list(_Issuer(directory, site, authorities, days, renew, frozenset(replace)).issue())
        _revoke(directory, site, authorities, issued)
    except OSError as error:
        inside = "" if str(error.filename) == str(directory) else f"{error.filename}: "
        raise ConfigError(f"cannot write site {directory}: {inside}{error.strerror}") from None
    return issued


def certificates_of(directory: Path, site: Site) -> Iterator[Issued]:
    """Yield the certificates of a site as they are, those of its authorities first; nothing is written.

    Raises:
        ConfigError: A file is missing.
    """
    stems = [f"{AUTHORITY}/{name}" for name in CAS]
    stems += ["cloud/broker", *(f"edges/{node}/broker" for node in site.edges)]
    stems += [f"mirrors/{host}/mirror" for host in site.mirrors]
    stems += [f"{files.folder}/{files.stem}" for files in client_files(site)]
    for stem in stems:
        path = directory / f"{stem}.pem"
        try:
            facts = certificates.read(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from None
        except PermanentError as error:
            hint = "run 'gleaner provision' for this site again, which issues it again"
            raise ConfigError(f"{path} is damaged: {error}", hint=hint) from None
        yield Issued(facts.name, path, facts.until, "kept" if facts.issuer_id else "authority")


def _revoke(directory: Path, site: Site, authorities: Authorities, issued: list[Issued]) -> None:
    """Write the lists of revoked certificates for all brokers and mirrors."""
    records = record_issued(directory, authorities.key_ids)
    valid = {one.name: certificates.read(one.path.read_bytes()).key_id for one in issued}
    path = directory / AUTHORITY / REVOKED
    lists = write_revocations(path, authorities.all, revoked(records, valid))
    servers = (*(f"edges/{node}" for node in site.edges), *(f"mirrors/{host}" for host in site.mirrors))
    for folder in ("cloud", *servers):
        write(directory / folder / REVOKED, lists)


def check_known(site: Site, names: Iterable[str]) -> None:
    """Check that a site has these common names.

    Raises:
        ConfigError: It has no such client or broker.
    """
    known = {files.identity.common_name for files in client_files(site)}
    known |= {f"{node}.broker" for node in (CLOUD, *site.edges)}
    known |= {f"{MIRROR}{host}" for host in site.mirrors}
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no {name} in this site", hint="see 'gleaner provision DIR --list'")


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


@dataclass(frozen=True, slots=True)
class _Issuer:
    """Writes the folders of the machines of a site."""

    directory: Path
    site: Site
    authorities: Authorities
    days: int
    renew: bool
    replaced: frozenset[str]

    def issue(self) -> Iterator[Issued]:
        yield self._broker("cloud", None, self.site.cloud)
        for node, edge in self.site.edges.items():
            yield self._broker(f"edges/{node}", node, edge.broker)
            write(self.directory / f"edges/{node}/release.pem", self.authorities.release_keys)
        for host in self.site.mirrors:
            yield self._mirror(host)
        for files in client_files(self.site):
            yield self._client(files)

    def _broker(self, folder: str, node: str | None, address: Address) -> Issued:
        """Write the files of one mosquitto."""
        directory, home = self.directory / folder, self._home(folder)
        hosts = tuple(dict.fromkeys((address.host, *_LOCAL_HOSTS)))
        make = partial(certificates.broker_certificate, hosts=hosts)
        issued = self._certificate(directory / "broker", f"{node or CLOUD}.broker", "ca", make)
        write(directory / "ca.pem", self.authorities.trusts["ca"].bundle)
        write(directory / "operations.pem", self.authorities.trusts["operations"].bundle)
        write(directory / "rights", acl.access_list(allowed_identities(self.site, node)).encode())
        cloud = self.site.cloud
        text = configuration(
            address.port,
            Path(_BROKER_DATA) if self.site.home else make_folder(directory / "data"),
            # The host may be an address that this machine does not have, as behind NAT: listen on all.
            address=address.host if is_loopback(address.host) else "",
            access=Access(
                _tls(home, "broker"), f"{home}/operations.pem", f"{home}/rights", f"{home}/{REVOKED}"
            ),
            bridge=Bridge(node, cloud.host, cloud.port, _tls(home, "bridge")) if node else None,
            user=None if self.site.home else _user(),
        )
        write(directory / "mosquitto.conf", f"# Overwritten by each gleaner provision.\n{text}".encode())
        return issued

    def _mirror(self, host: str) -> Issued:
        """Write key and certificate of one mirror, and the CA of the edges that it serves."""
        directory = self.directory / "mirrors" / host
        make = partial(certificates.broker_certificate, hosts=(host,))
        issued = self._certificate(directory / "mirror", f"{MIRROR}{host}", "ca", make)
        write(directory / "ca.pem", self.authorities.trusts["ca"].bundle)
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
        write(directory / "ca.pem", self.authorities.trusts["ca"].bundle)
        # Existing configurations are kept: people edit them.
        for stem, address, fields in self._configurations(files):
            text = _toml(fields, address, files.authority, _tls(home, files.stem))
            if files.identity.kind == "trainer":  # its own certificate may not publish releases and policies
                text += "\n" + _broker(address, files.authority, _tls(home, "rollout"), "release_broker")
            read_or_create(directory / f"{stem}.toml", text.encode)
        return issued

    def _configurations(self, files: ClientFiles) -> Iterator[tuple[str, Address, Fields]]:
        """Yield the TOML files of a client: name, broker, and the fields outside `[broker]`."""
        identity, cloud, edges = files.identity, self.site.cloud, self.site.edges
        match identity.kind:
            case "device":
                yield files.stem, edges[identity.node].broker, {"node": identity.node, "name": identity.name}
            case "edge":
                yield files.stem, edges[identity.node].broker, self._edge_fields(files)
            case "operator":
                yield CLOUD, cloud, {}
                for node, edge in edges.items():
                    yield node, edge.broker, {}
            case "collector":
                yield files.stem, cloud, {"name": identity.name}
            case "trainer" | "rollout" | "gateway" | "console" | "notify":
                yield files.stem, cloud, {}
            case "bridge" | "homeassistant":
                return  # configured in mosquitto.conf, and by its user

    def _edge_fields(self, files: ClientFiles) -> Fields:
        """Return the fields of a handler's configuration."""
        identity, edge = files.identity, self.site.edges[files.identity.node]
        fields: Fields = {"node": identity.node, "release_key": f"{self._home(files.folder)}/release.pem"}
        if self.site.home:
            # Each handler has its own model server, which reads the models from there.
            suffix = "" if identity.name == HANDLERS[0] else f"-{identity.name}"
            fields["models_dir"] = f"{_STATE}/models{suffix}"
        if edge.homeassistant:
            fields["homeassistant"] = True
        # A single handler keeps the default name and state_dir, as in sites of earlier versions.
        if edge.handlers > 1:
            fields |= {"name": identity.name, "shares": True, "state_dir": f"{_STATE}/{identity.name}"}
        return fields

    def _certificate(self, stem: Path, name: str, authority: str, make: Callable[..., bytes]) -> Issued:
        path, key_path = stem.with_name(f"{stem.name}.pem"), stem.with_name(f"{stem.name}.key")
        if name in self.replaced:
            write(key_path, certificates.new_key())
        key = read_or_create(key_path, certificates.new_key)
        try:
            certificates.key_id(key)
        except PermanentError as error:
            hint = f"make a new key with --replace {name}"
            raise ConfigError(f"{key_path} is damaged: {error}", hint=hint) from None
        done = self._verdict(path, key, self.authorities.trusts[authority])
        if done != "kept":
            write(path, make(self.authorities.trusts[authority].current, key, name, days=self.days))
        return Issued(name, path, certificates.read(path.read_bytes()).until, done)

    def _verdict(self, path: Path, key: bytes, trust: Trust) -> Literal["new", "renewed", "kept"]:
        """Return what to do with a certificate: issue it, issue it again for its key, or keep it."""
        if not path.exists():
            return "new"
        try:
            facts = certificates.read(path.read_bytes())
        except PermanentError:  # damaged: of no more use than a missing one
            return "new"
        if facts.key_id != certificates.key_id(key):  # without its key it is useless
            return "new"
        ended = facts.issuer_id not in {certificates.key_id(one.key) for one in trust.all}
        return "renewed" if self.renew or ended else "kept"

    def _home(self, folder: str) -> str:
        """Return where a folder will be used; the operator's is used where it is written."""
        return self.site.home if self.site.home and folder != "operator" else str(self.directory / folder)


def _tls(home: str, stem: str) -> Tls:
    return Tls(ca=f"{home}/ca.pem", certificate=f"{home}/{stem}.pem", key=f"{home}/{stem}.key")


def _toml(fields: Fields, address: Address, authority: str, tls: Tls) -> str:
    """Return the configuration of a component."""
    lines = "".join(f"{name} = {_toml_value(value)}\n" for name, value in fields.items())
    return (lines + "\n" + _broker(address, authority, tls)).lstrip()


def _broker(address: Address, authority: str, tls: Tls, table: str = "broker") -> str:
    """Return the table of a broker."""
    port = address.port if authority == "ca" else address.port + 1
    lines = [f"[{table}]", f"host = {_toml_value(address.host)}", f"port = {port}", "", f"[{table}.tls]"]
    files = msgspec.structs.asdict(tls)
    lines += [f"{name} = {_toml_value(value)}" for name, value in files.items() if value is not None]
    return "\n".join(lines) + "\n"


def _toml_value(value: str | bool) -> str:  # noqa: FBT001  # the value of a field
    return msgspec.json.encode(value).decode()  # JSON strings and booleans are valid TOML


def _user() -> str | None:
    """Return the name of the present user, who owns the written files; None if it has none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return None
