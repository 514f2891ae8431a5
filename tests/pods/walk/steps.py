"""The numbered steps of the README, with the shell commands of each."""

import re
from dataclasses import dataclass

from tests.conftest import ROOT

README = ROOT / "deploy/kubeedge/README.md"
_SECTION = "\n## From nothing to a fleet\n"
_STEP = re.compile(r"^(\d+)\. ", re.MULTILINE)
_BLOCK = re.compile(r"^ +```sh\n(.*?)^ +```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Step:
    """A step.

    Args:
        number: Its number in the README.
        script: Its shell commands.
    """

    number: int
    script: str


def steps() -> list[Step]:
    """Return the steps that have commands; each has one block of them."""
    section = README.read_text(encoding="utf-8").partition(_SECTION)[2].partition("\n## ")[0]
    _, *parts = _STEP.split(section)
    found = []
    for number, text in zip(parts[::2], parts[1::2], strict=True):
        blocks = _BLOCK.findall(text)
        assert len(blocks) <= 1, f"step {number} has {len(blocks)} blocks of commands"
        found += [Step(int(number), block) for block in blocks]
    return found
