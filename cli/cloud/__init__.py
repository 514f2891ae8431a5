"""The cloud side: import, collect, review, teach, train, release, watch."""

from cli.cloud.commands import add_arguments, run

__all__ = ["add_arguments", "run"]
