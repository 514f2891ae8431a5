"""Print a new version, and the verdicts of the promotion gate and of the variant gate."""

from typing import TYPE_CHECKING

from cli.output import print_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloud.evaluation.promotion_gate import Verdict
    from cloud.evaluation.variant_gate import VariantVerdict
    from cloud.registry.model_card import Candidate, GroupOutcome
    from cloud.training.packaging import Trained


def show_verdict(verdict: "Verdict | None") -> None:
    """Print a verdict with its reasons; nothing for None."""
    if verdict is None:
        return
    print_line(f"gate: {verdict.decision}, against version {verdict.champion}")
    for reason in verdict.reasons:
        print_line(f"      {reason}")
    if verdict.audit is not None:
        audit = verdict.audit
        print_line(
            f"      audit accuracy {audit.champion:.1%} → {audit.challenger:.1%} on {audit.photos} photos"
        )
    if verdict.latency_ratio is not None:
        print_line(f"      latency: {verdict.latency_ratio:.2f} times the champion's")


def show_variants(variants: "Sequence[VariantVerdict]") -> None:
    """Print which LiteRT variants are in the bundle, and why others are not."""
    for variant in variants:
        gold = "" if variant.gold is None else f", {variant.gold.challenger:.1%} on gold"
        print_line(f"LiteRT {variant.name}: {'in' if variant.served else 'not in'} the bundle{gold}")
        for reason in variant.reasons:
            print_line(f"      {reason}")


def show_groups(groups: "Sequence[GroupOutcome]") -> None:
    """Print which groups of devices have a head in the bundle, and why others do not."""
    for group in groups:
        if not group.served:
            print_line(f"group {group.name}: the shared head: {group.reason}")
            continue
        whose = {"own": "its own head", "aligned": "the aligned head"}
        change = f"{group.accuracy:.1%} → {group.group_accuracy:.1%} on {group.labels} held-out labels"
        print_line(f"group {group.name}: {whose.get(group.source, f'the head of {group.source}')}, {change}")


def _measured(candidate: "Candidate") -> str:
    """Return the accuracy on gold; without gold photos that on labels that each fold held out."""
    if candidate.gold_accuracy is not None:
        return f", {candidate.gold_accuracy:.1%} on gold"
    if candidate.held_out_accuracy is not None:
        return f", {candidate.held_out_accuracy:.1%} on {candidate.held_out_photos} held-out labels"
    return ""


def show_trained(trained: "Trained") -> None:
    """Print a new version: its candidates, the verdicts and its bundle."""
    from cloud.registry.registry import REPORT_NAME  # noqa: PLC0415  # loads NumPy

    card = trained.card
    for candidate in card.candidates:
        chosen = "→" if candidate.name == card.chosen else " "
        print_line(f"{chosen} {candidate.name}: {candidate.photos} photos{_measured(candidate)}")
    show_verdict(card.verdict)
    show_variants(card.variants)
    show_groups(card.groups)
    if not card.auto:
        print_line(
            "the lane auto did not help twice running: 'gleaner cloud policy --auto off' switches it off"
        )
    print_line(f"report: {trained.directory / REPORT_NAME}")
    print_line(f"version {card.version}: {trained.bundle_path} ({trained.size_bytes / 1e6:.1f} MB)")
