"""Run a mirror at a site: it fetches each bundle once, and serves it to the edges there."""

from argparse import ArgumentParser, Namespace

from bus import log
from bus.config import ConfigError
from cli import options, run_service


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--origin",
        metavar="URL",
        action="append",
        required=True,
        help="http, https or s3 URL of a folder with bundles; bundles elsewhere are refused. May be repeated",
    )
    parser.add_argument(
        "--listen",
        type=options.listen_address,
        default="127.0.0.1:8480",
        metavar="HOST:PORT",
        help="where to serve (127.0.0.1:8480)",
    )
    parser.add_argument(
        "--max-bytes",
        type=options.positive(int),
        default=10_000_000_000,
        metavar="N",
        help="disk space for bundles; the least used ones are removed (10000000000)",
    )
    parser.add_argument("--certificate", metavar="PEM", help="serve HTTPS with this certificate")
    parser.add_argument("--key", metavar="PEM", help="its key, if it is in another file")
    parser.add_argument(
        "--clients",
        metavar="PEM",
        help="serve only edges with a certificate of this CA, ca.pem of the site (any client)",
    )
    parser.add_argument(
        "--crl", metavar="PEM", help="refuse the certificates that are revoked in this file, revoked.crl"
    )
    parser.add_argument(
        "--probes",
        type=options.listen_address,
        metavar="HOST:PORT",
        help="where to serve /livez, /readyz and /metrics (nowhere)",
    )
    parser.add_argument(
        "--state-dir",
        metavar="DIR",
        default=options.default_state("mirror"),
        help="folder of the bundles (default: ~/.local/state/gleaner/mirror)",
    )
    parser.add_argument("--log-level", choices=log.LEVELS, default="info")


def run(arguments: Namespace) -> int:
    """Run until a signal arrives."""
    from edge.mirror import mirror_server  # noqa: PLC0415  # loaded by this command alone
    from edge.mirror.bundle_store import check_origin  # noqa: PLC0415  # as above

    for option, other in (("key", "certificate"), ("clients", "certificate"), ("crl", "clients")):
        if getattr(arguments, option) and not getattr(arguments, other):
            raise ConfigError(f"option --{option} needs --{other}")
    for origin in arguments.origin:
        check_origin(origin)
    config = mirror_server.MirrorConfig(
        listen=arguments.listen,
        origins=tuple(arguments.origin),
        state_dir=arguments.state_dir,
        max_bytes=arguments.max_bytes,
        certificate=arguments.certificate,
        key=arguments.key,
        clients=arguments.clients,
        crl=arguments.crl,
        probes=arguments.probes,
    )
    log.configure(arguments.log_level)
    run_service.serve("mirror", config, mirror_server.run(config))
    return 0
