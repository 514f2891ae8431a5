"""Write keys, certificates, ACLs and configurations of a site: one folder for each machine.

Another run adds nodes and devices; existing keys and configurations stay.
"""

import argparse
import shutil
from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bus.config import ConfigError
from cli import options

if TYPE_CHECKING:
    from bus.provisioning.site import Address, Site

_DAYS = 730
_EXPIRES_SOON = timedelta(days=30)


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
        "--remove", metavar="NODE.DEVICE", help="revoke a device's permissions and delete its folder"
    )
    parser.add_argument("--collectors", metavar="N", type=int, help="number of collectors (2)")
    parser.add_argument(
        "--home", metavar="DIR", help="path of each folder on its own machine (where it is written)"
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
    from bus.provisioning.provision import handlers_without_shares, provision  # noqa: PLC0415  # only this command loads cryptography

    soon = datetime.now(UTC) + _EXPIRES_SOON
    site = _site(arguments)
    for issued in provision(arguments.directory, site, days=arguments.days, renew=arguments.renew):
        hint = "  (expires soon: --renew)" if issued.until < soon else ""
        print(f"{issued.done:<8} {issued.name:<24} until {issued.until:%Y-%m-%d}  {issued.path}{hint}")
    for path in handlers_without_shares(arguments.directory, site):
        print(f"{path}: add shares = true; without it this handler also answers the photos of the others")
    if arguments.remove:  # last: the ACL without the device is written by now
        shutil.rmtree(arguments.directory / "devices" / arguments.remove)
    return 0


def _site(arguments: Namespace) -> "Site":
    """Return the existing site, changed as the options say."""
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
        )
    if arguments.collectors is not None:
        site = msgspec.structs.replace(site, collectors=arguments.collectors)
    if arguments.remove:
        site = sites.without_device(site, arguments.remove)
    try:
        # Structs check their constraints only when they are decoded.
        return msgspec.convert(msgspec.to_builtins(site), sites.Site)
    except msgspec.ValidationError as error:
        raise ConfigError(f"invalid options: {error}") from None


def _address(address: tuple[str, int | None] | None) -> "Address | None":
    from bus.provisioning.site import TLS_PORT, Address  # noqa: PLC0415  # as above

    return None if address is None else Address(host=address[0], port=address[1] or TLS_PORT)
