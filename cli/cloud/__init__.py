"""The cloud side: dataset, training, releases and the fleet."""

from cli.cloud.commands import add_arguments, run

__all__ = ["add_arguments", "run"]
