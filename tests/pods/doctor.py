"""`gleaner doctor`, as an operator runs it: at a node's broker, or at the cloud's."""

import asyncio
import sys
from pathlib import Path

from tests.pods.lab import PodLab

_GLEANER = str(Path(sys.executable).with_name("gleaner"))
_TIMEOUT_S = "10"


async def at_node(lab: PodLab, node: str) -> str:
    """Return doctor's output about a node at the node's broker, from this machine."""
    config = lab.site / f"operator/{node}.toml"
    return await _output(_GLEANER, "doctor", "--config", str(config), "--node", node, "--timeout", _TIMEOUT_S)


async def at_cloud(lab: PodLab) -> str:
    """Return doctor's output about everything that reports to the cloud's broker, from the cloud machine."""
    words = ("--config", lab.site / "operator/cloud.toml", "--all", "--timeout", _TIMEOUT_S)
    return await _output(*lab.cloud.machine.command(_GLEANER, "doctor", *words))


def failures(said: str) -> list[str]:
    """Return the checks that failed, each with its advice."""
    lines = said.splitlines()
    return [
        f"{line} {advice.strip()}"
        for line, advice in zip(lines, [*lines[1:], ""], strict=True)
        if line.startswith("FAIL")
    ]


async def _output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return output.decode()
