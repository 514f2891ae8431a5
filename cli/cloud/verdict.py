"""How the gate's verdict reads on a terminal."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloud.gate import Gate


def show_verdict(version: int, gate: "Gate") -> None:
    """Print the verdict on a version and each of its reasons."""
    print(f"version {version}: {gate.verdict}")
    for reason in gate.reasons:
        print(f"  {reason}")
    if gate.latency is not None:
        print(f"  time of an answer: {gate.latency.ratio:.2f} times the champion's")
