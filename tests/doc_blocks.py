"""The shell blocks of the documents: a comment before each names the test that runs it, or why none does."""

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

from tests.conftest import DEADLINE_S, ROOT

_FOLDERS = (".", "docs", "examples", "deploy/kubeedge", "deploy/kubeedge/lab")
_BLOCK = re.compile(
    r"^(?: *<!-- (?P<kind>tested|not run): (?P<words>.+?) -->\n)?"
    r"(?P<indent> *)```(?:sh|bash|console|shell)\b.*\n(?P<text>(?:.*\n)*?)(?P=indent)```",
    re.MULTILINE,
)


class Block(NamedTuple):
    """A block of a document.

    Args:
        place: Document, and number in it.
        kind: `tested`, `not run`, or empty without a mark.
        words: Name of a tested one, or the reason.
        text: Its lines.
    """

    place: str
    kind: str
    words: str
    text: str


def all_blocks() -> list[Block]:
    """Return the shell blocks of all documents."""
    return [
        Block(
            f"{path.relative_to(ROOT)}, block {number}",
            found["kind"] or "",
            found["words"] or "",
            found["text"],
        )
        for folder in _FOLDERS
        for path in sorted((ROOT / folder).glob("*.md"))
        for number, found in enumerate(_BLOCK.finditer(path.read_text(encoding="utf-8")), start=1)
    ]


def block(name: str) -> str:
    """Return the lines of the tested block with this name."""
    (found,) = (one.text for one in all_blocks() if (one.kind, one.words) == ("tested", name))
    return found


async def execute(text: str, home: Path, **variables: object) -> tuple[int, str]:
    """Run a block in a shell that has the command on its path; return exit code and output.

    Args:
        text: Lines of a block.
        home: Home and working folder.
        variables: Of the environment.
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))  # a downloaded mosquitto
    process = await asyncio.create_subprocess_exec(
        "sh", "-eu", "-c", text,
        cwd=home,
        env=os.environ
        | {"PATH": path, "HOME": str(home), "XDG_CACHE_HOME": cache}
        | {name: str(value) for name, value in variables.items()},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(2 * DEADLINE_S):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()
