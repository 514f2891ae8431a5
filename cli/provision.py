"""Write keys, certificates, ACLs and configurations of a site: one folder for each machine.

Another run adds nodes and devices; existing keys and configurations stay, unless `--replace`, `--rotate` or
`--remove` ends them.
"""

import argparse
import shutil
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bus.config import ConfigError
from cli import options
from cli.output import print_line
from schemas.contract.published import readable

if TYPE_CHECKING:
    from bus.provisioning.provision import Issued
    from bus.provisioning.site import Address, Site

_DAYS = 730
_OVERLAP_DAYS = 30
EXPIRES_SOON = timedelta(days=30)


class _OfEdge(argparse.Action):
    """Stores an option with the last `--edge` before it."""

    def __call__(self, parser: ArgumentParser, namespace: Namespace, values: Any, *_: object) -> None:
        edges: list[dict[str, Any]] = namespace.edges
        if self.dest == "edge":
            edges.append({"edge": values})
        elif not edges:
            parser.error(f"{self.option_strings[0]}: expected --edge before it")
        else:
            edges[-1][self.dest] = values


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder of the site; it contains secrets")
    parser.add_argument(
        "--cloud",
        metavar="HOST[:PORT]",
        type=options.address,
        help="the cloud's broker; uses this port and the next (8883)",
    )
    parser.add_argument(
        "--edge", metavar="NODE", type=options.name, action=_OfEdge, help="an edge node; repeat for each"
    )
    parser.add_argument(
        "--edge-host",
        metavar="HOST[:PORT]",
        type=options.address,
        action=_OfEdge,
        help="broker of the preceding --edge; uses this port and the next (NODE:8883)",
    )
    parser.add_argument(
        "--devices",
        metavar="A,B",
        type=options.names,
        action=_OfEdge,
        help="comma-separated devices of the preceding --edge",
    )
    parser.add_argument(
        "--handlers",
        metavar="N",
        type=options.positive(int),
        action=_OfEdge,
        help="number of handlers that share the photos of the preceding --edge (1)",
    )
    parser.add_argument(
        "--homeassistant",
        nargs=0,
        action=_OfEdge,
        help="make a certificate with which Home Assistant connects to the broker of the preceding --edge",
    )
    parser.add_argument(
        "--mirror",
        metavar="HOST",
        action="append",
        default=[],
        help="make a certificate for the gleaner mirror at this host; repeat for each",
    )
    parser.add_argument(
        "--remove",
        metavar="NAME",
        help="revoke the certificates and permissions of a device NODE.DEVICE, of a NODE with its devices, or"
        " of mirror@HOST, and delete its folder",
    )
    parser.add_argument(
        "--replace",
        metavar="NAME",
        action="append",
        default=[],
        help="make a new key for this identity, such as edge-1.pi-2 or cloud.collector, and revoke the old"
        " one; repeat for each",
    )
    parser.add_argument(
        "--rotate",
        choices=("authority", "signing"),
        help="make new CAs, or a new signing key; the old ones are trusted for --overlap days as well",
    )
    parser.add_argument(
        "--overlap",
        metavar="DAYS",
        type=options.at_least_0(float),
        default=_OVERLAP_DAYS,
        help=f"for --rotate: days until the old ones end; 0: now ({_OVERLAP_DAYS})",
    )
    parser.add_argument(
        "--list", action="store_true", help="only list the certificates and when they end; write nothing"
    )
    parser.add_argument("--collectors", metavar="N", type=int, help="number of collectors (2)")
    parser.add_argument(
        "--home",
        metavar="DIR",
        help="path of each folder on its own machine (where it is written); edges then have a models_dir"
        " below /var/lib/gleaner",
    )
    parser.add_argument(
        "--days", type=options.positive(int), default=_DAYS, help=f"validity of new certificates ({_DAYS})"
    )
    parser.add_argument(
        "--renew", action="store_true", help="issue all certificates again, for the same keys"
    )
    parser.set_defaults(edges=[])


def run(arguments: Namespace) -> int:
    """Provision the site and print the expiry of each certificate."""
    from bus.provisioning import authorities  # noqa: PLC0415  # only this command loads cryptography
    from bus.provisioning import provision as provisioning  # noqa: PLC0415  # as above

    if arguments.list:
        return _list(arguments.directory)
    directory = arguments.directory
    site = _site(arguments)
    provisioning.check_known(site, arguments.replace)
    if arguments.rotate:
        if not (directory / provisioning.SITE).exists():
            raise ConfigError(f"cannot rotate the keys of {directory}: there is no site")
        authorities.rotate(directory / provisioning.AUTHORITY, arguments.rotate, arguments.overlap)
    for issued in provisioning.provision(
        directory, site, days=arguments.days, renew=arguments.renew, replace=arguments.replace
    ):
        _print(issued)
    for path in provisioning.handlers_without_shares(directory, site):
        print_line(
            f"{path}: add shares = true; without it this handler also answers the photos of the others"
        )
    for folder in _removed_folders(directory, arguments.remove):  # last: the ACL without it is written by now
        shutil.rmtree(folder)
    return 0


def _list(directory: Path) -> int:
    """Print the certificates of a site; return 1 if one ends within 30 days."""
    from bus.provisioning.provision import certificates_of, read_site  # noqa: PLC0415  # as above

    site = read_site(directory)
    if site is None:
        raise ConfigError(f"there is no site in {directory}")
    return 1 if sum([_print(issued) for issued in certificates_of(directory, site)]) else 0


def _print(issued: "Issued") -> bool:
    """Print a certificate; return whether it ends soon."""
    left = issued.until - datetime.now(UTC)
    word = "renew" if issued.done != "authority" else "rotate authority"
    hint = (
        "" if left > EXPIRES_SOON else f"  ({'expired' if left < timedelta() else 'expires soon'}: --{word})"
    )
    print_line(f"{issued.done:<9} {issued.name:<24} until {issued.until:%Y-%m-%d}  {issued.path}{hint}")
    return bool(hint)


def _removed_folders(directory: Path, name: str | None) -> list[Path]:
    from bus.provisioning.site import MIRROR  # noqa: PLC0415  # as above

    if name is None:
        return []
    if name.startswith(MIRROR):
        return [directory / "mirrors" / name.removeprefix(MIRROR)]
    if "." in name:
        return [directory / "devices" / name]
    return [directory / "edges" / name, *(directory / "devices").glob(f"{name}.*")]


def _site(arguments: Namespace) -> "Site":
    """Return the existing site, changed by the options."""
    from bus.provisioning import site as sites  # noqa: PLC0415  # as above
    from bus.provisioning.provision import SITE, read_site  # noqa: PLC0415  # as above

    site = read_site(arguments.directory)
    cloud = _address(arguments.cloud)
    if site is None:
        if cloud is None:
            raise ConfigError("a new site needs the address of the cloud's broker", hint="pass --cloud HOST")
        site = sites.Site(cloud=cloud, home=arguments.home)
    for option, value, existing in (("--cloud", cloud, site.cloud), ("--home", arguments.home, site.home)):
        if value not in (None, existing):
            raise ConfigError(
                f"option {option} cannot change from {existing or 'none'} to {value}: "
                f"certificates and files contain it (see {SITE})"
            )
    for edge in arguments.edges:
        site = sites.with_edge(
            site,
            edge["edge"],
            _address(edge.get("edge_host")),
            edge.get("devices", []),
            edge.get("handlers"),
            homeassistant="homeassistant" in edge,
        )
    if arguments.collectors is not None:
        site = msgspec.structs.replace(site, collectors=arguments.collectors)
    mirrors = list(dict.fromkeys((*site.mirrors, *arguments.mirror)))
    site = msgspec.structs.replace(site, mirrors=mirrors)
    if arguments.remove:
        site = _without(arguments.remove)(site, arguments.remove)
    try:
        # Structs check their constraints only when they are decoded.
        return msgspec.convert(msgspec.to_builtins(site), sites.Site)
    except msgspec.ValidationError as error:
        raise ConfigError(f"invalid options: {readable(error)}") from None


def _without(name: str) -> "Callable[[Site, str], Site]":
    """Return what removes a client of this name."""
    from bus.provisioning import site as sites  # noqa: PLC0415  # as above

    if name.startswith(sites.MIRROR):
        return sites.without_mirror
    return sites.without_device if "." in name else sites.without_node


def _address(address: tuple[str, int | None] | None) -> "Address | None":
    from bus.provisioning.site import TLS_PORT, Address  # noqa: PLC0415  # as above

    return None if address is None else Address(host=address[0], port=address[1] or TLS_PORT)
