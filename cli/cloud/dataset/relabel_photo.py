"""Replace the label that a person gave to a photo, harvested or imported; no broker is needed."""

from argparse import ArgumentParser, Namespace

from cli.cloud.dataset import label_photo


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    label_photo.add_arguments(parser)


def run(arguments: Namespace) -> int:
    """Store the label and print what it replaced."""
    return label_photo.label_photo(arguments, "relabel")
