"""Make the keys, certificates, rights and configurations of a site: a folder for each machine.

Run it again to add nodes and devices: what is there stays.
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
_SOON = timedelta(days=30)


class _OfEdge(argparse.Action):
    """Keeps what belongs to the `--edge` before it."""

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
    parser.add_argument("directory", type=Path, metavar="DIR", help="the site's folder; keep it safe")
    parser.add_argument(
        "--cloud",
        metavar="HOST[:PORT]",
        type=options.address,
        help="the cloud's broker; port and the next (8883)",
    )
    parser.add_argument(
        "--edge", metavar="NODE", type=options.name, action=_OfEdge, help="an edge node; again for each"
    )
    parser.add_argument(
        "--edge-host",
        metavar="HOST[:PORT]",
        type=options.address,
        action=_OfEdge,
        help="broker of the --edge before; port and the next (NODE:8883)",
    )
    parser.add_argument(
        "--devices",
        metavar="A,B",
        type=options.names,
        action=_OfEdge,
        help="devices of the --edge before, comma-separated",
    )
    parser.add_argument(
        "--handlers",
        metavar="N",
        type=options.positive(int),
        action=_OfEdge,
        help="how many handlers share the photos of the --edge before (1)",
    )
    parser.add_argument(
        "--remove", metavar="NODE.DEVICE", help="take a device's rights, and delete its folder"
    )
    parser.add_argument("--collectors", metavar="N", type=int, help="how many collectors (2)")
    parser.add_argument(
        "--home", metavar="DIR", help="where each folder will be on its machine (where it is made now)"
    )
    parser.add_argument(
        "--days", type=options.positive(int), default=_DAYS, help=f"that new certificates last ({_DAYS})"
    )
    parser.add_argument("--renew", action="store_true", help="make certificates anew; keys stay")
    parser.set_defaults(edges=[])


def run(arguments: Namespace) -> int:
    """Provision and print what each certificate is good for."""
    from bus.provisioning.provision import handlers_without_shares, provision  # noqa: PLC0415  # this command alone loads the cryptography

    soon = datetime.now(UTC) + _SOON
    site = _site(arguments)
    for issued in provision(arguments.directory, site, days=arguments.days, renew=arguments.renew):
        hint = "  (ends soon: --renew)" if issued.until < soon else ""
        print(f"{issued.done:<8} {issued.name:<24} until {issued.until:%Y-%m-%d}  {issued.path}{hint}")
    for path in handlers_without_shares(arguments.directory, site):
        print(f"{path}: expected shares = true; without it this handler answers the others' photos too")
    if arguments.remove:
        shutil.rmtree(arguments.directory / "devices" / arguments.remove)
    return 0


def _site(arguments: Namespace) -> "Site":
    """Return the site that is there, with what the options add to it."""
    from bus.provisioning import site as sites  # noqa: PLC0415  # as above
    from bus.provisioning.provision import SITE, read_site  # noqa: PLC0415  # as above

    site = read_site(arguments.directory)
    cloud = _place(arguments.cloud)
    if site is None:
        if cloud is None:
            raise ConfigError("option --cloud", expected="the cloud's broker for a new site", got="none")
        site = sites.Site(cloud=cloud, home=arguments.home)
    for option, wanted, there in (("--cloud", cloud, site.cloud), ("--home", arguments.home, site.home)):
        if wanted not in (None, there):
            expected = f"{there or 'none'} as before (see {SITE})"
            raise ConfigError(f"option {option}", expected=expected, got=wanted)
    for edge in arguments.edges:
        site = sites.with_edge(
            site, edge["edge"], _place(edge.get("edge_host")), edge.get("devices", []), edge.get("handlers")
        )
    if arguments.collectors is not None:
        site = msgspec.structs.replace(site, collectors=arguments.collectors)
    if arguments.remove:
        site = sites.without_device(site, arguments.remove)
    try:
        return msgspec.convert(msgspec.to_builtins(site), sites.Site)
    except msgspec.ValidationError as error:
        raise ConfigError("options", expected="names and hosts that can be used", got=error) from None


def _place(address: tuple[str, int | None] | None) -> "Address | None":
    from bus.provisioning.site import TLS_PORT, Address  # noqa: PLC0415  # as above

    return None if address is None else Address(host=address[0], port=address[1] or TLS_PORT)
