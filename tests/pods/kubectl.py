"""kubectl, against the laboratory's API server."""

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

from schemas.errors import TransientError

Thing = dict[str, Any]  # an object of Kubernetes as JSON
_CALL_S = 300.0
_LOOK_S = 0.25


class KubectlError(TransientError):
    """kubectl failed, or what was waited for did not happen."""


class Kubectl:
    """kubectl with a kubeconfig.

    Args:
        kubeconfig: Of the user with all rights; its context names Gleaner's namespace.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self._command = ["kubectl", f"--kubeconfig={kubeconfig}"]

    def __call__(self, *words: str | Path, text: str | None = None, check: bool = True) -> str:
        """Run a command and return what it wrote to stdout.

        Args:
            words: The command.
            text: Its standard input.
            check: Whether it must succeed.

        Raises:
            KubectlError: It failed.
        """
        done = subprocess.run(
            [*self._command, *map(str, words)],
            input=text, capture_output=True, text=True, timeout=_CALL_S, check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise KubectlError(f"kubectl {' '.join(map(str, words))} failed: {done.stderr.strip()}")
        return done.stdout

    def get(self, *words: str) -> list[Thing]:
        """Return objects."""
        return cast(list[Thing], json.loads(self("get", *words, "-o", "json"))["items"])

    def apply(self, *things: Thing) -> None:
        """Apply objects."""
        everything = {"apiVersion": "v1", "kind": "List", "items": list(things)}
        self("apply", "--server-side", "--force-conflicts", "-f", "-", text=json.dumps(everything))

    async def run(self, *words: str | Path, text: str | None = None, check: bool = True) -> str:
        """Run a command without blocking the event loop; see `__call__`."""
        return await asyncio.to_thread(self, *words, text=text, check=check)


async def until(
    holds: Callable[[], Awaitable[bool]], what: str, *, within_s: float = 600.0, told: Callable[[], str] = str
) -> None:
    """Wait until a condition holds; errors count as not yet.

    Args:
        holds: The condition.
        what: What is waited for, for the error.
        within_s: How long, in seconds.
        told: More about the state, for the error.

    Raises:
        KubectlError: It did not happen in time.
    """
    last = ""
    try:
        async with asyncio.timeout(within_s):
            while True:
                try:
                    if await holds():
                        return
                except TransientError as error:
                    last = str(error)
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise KubectlError(f"{what}: not within {within_s:.0f} s. {last} {told()}") from None
