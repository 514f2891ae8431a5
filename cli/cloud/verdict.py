"""Print the promotion gate's verdict."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloud.evaluation.promotion_gate import Verdict


def show_verdict(verdict: "Verdict | None") -> None:
    """Print a verdict with its reasons; nothing for None."""
    if verdict is None:
        return
    print(f"gate: {verdict.decision}, against version {verdict.champion}")
    for reason in verdict.reasons:
        print(f"      {reason}")
    if verdict.audit is not None:
        audit = verdict.audit
        print(f"      audit accuracy {audit.champion:.1%} → {audit.challenger:.1%} on {audit.photos} photos")
    if verdict.latency_ratio is not None:
        print(f"      latency: {verdict.latency_ratio:.2f} times the champion's")
