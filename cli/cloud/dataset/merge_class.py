"""Join a class of the dataset with another one that exists, such as Cat with cat."""

from argparse import ArgumentParser, Namespace

from cli.cloud.dataset import rename_class


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    rename_class.add_arguments(parser)


def run(arguments: Namespace) -> int:
    """Join them; INTO must exist."""
    return rename_class.rename(arguments, merge=True)
