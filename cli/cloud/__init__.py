"""The cloud side: import, collect, train, release, review."""

from cli.cloud.steps import add_arguments, run

__all__ = ["add_arguments", "run"]
