"""Variant gate: decide whether a LiteRT variant may serve in place of the graph it was made from. No I/O.

Both answer the same photos. A variant must give nearly the same answers: it is refused for a loss of
accuracy, and for any significant difference.
"""

import msgspec

from cloud.evaluation.metrics import Metrics, p_words
from cloud.evaluation.paired_comparison import Comparison, PairedPredictions, compare
from cloud.evaluation.recall_losses import SIGNIFICANCE

MAX_ACCURACY_LOSS = 0.005
"""Largest drop of the accuracy below the graph's, in [0, 1]."""


class VariantVerdict(msgspec.Struct, frozen=True):
    """Decision about a variant.

    Attributes:
        name: of the variant.
        served: whether it is in the bundle.
        reasons: sentences why it is not, or that nothing could be measured.
        gold: comparison of the graph (as champion) and the variant on the gold set, None without one.
        audit: the same on the audit slice.
        metrics: of the variant on the gold set.
    """

    name: str
    served: bool
    reasons: list[str]
    gold: Comparison | None = None
    audit: Comparison | None = None
    metrics: Metrics | None = None


def judge_variant(
    name: str,
    gold: PairedPredictions | None,
    audit: PairedPredictions | None,
    *,
    exact: bool,
    seed: int = 0,
) -> VariantVerdict:
    """Decide whether a variant is served.

    Args:
        name: of the variant.
        gold: predictions of the graph (as champion) and of the variant for the gold set; None without one.
        audit: the same for the audit slice.
        exact: whether the variant computes the same function, so that no photos are needed to trust it.
        seed: of the bootstrap.
    """
    on_gold, on_audit = (None if pair is None else compare(pair, seed) for pair in (gold, audit))
    reasons = [
        *([] if on_gold is None else _findings("gold", on_gold)),
        *([] if on_audit is None else _findings("audit", on_audit)),
    ]
    if on_gold is None and not exact:
        reasons.append("no gold photos to judge on")
    return VariantVerdict(name, not reasons, reasons, on_gold, on_audit)


def _findings(kind: str, comparison: Comparison) -> list[str]:
    before, after = comparison.champion, comparison.challenger
    change = f"{kind} accuracy {before:.1%} → {after:.1%} on {comparison.photos} photos"
    if comparison.gain < -MAX_ACCURACY_LOSS - 1e-9:  # one photo of 200 is 0.005 plus a rounding error
        return [f"{change}: more than {100 * MAX_ACCURACY_LOSS:.1f} points lost"]
    if comparison.p_value < SIGNIFICANCE:
        return [f"{change}: the answers differ ({p_words(comparison.p_value)})"]
    return []
