"""The option `--ray`: a Ray cluster embeds the photos first, and the command finds them in its cache."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from cli.progress import Bars

if TYPE_CHECKING:
    from cloud.ray_jobs.task import Work


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the option."""
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="embed the photos on a Ray cluster first: HOST:PORT, or auto for that of this machine; "
        "its machines read the dataset under the same path or URL",
    )


def embed_first(arguments: Namespace, work: "Work", where: str, bars: Bars) -> None:
    """Embed the photos of a condition on the cluster that `--ray` names.

    Args:
        arguments: With `ray` and `cache`.
        work: What to do with each photo.
        where: Condition in SQL.
        bars: Show the progress.

    Raises:
        PermanentError, TransientError: As `cloud.ray_jobs.cluster.embed_on_ray`.
    """
    from cloud.ray_jobs.cluster import embed_on_ray  # noqa: PLC0415  # each command loads what it needs

    embed_on_ray(work, arguments.ray, where, arguments.cache, bars)
