"""Uncertainty of a prediction: what `hard_entropy` of the harvest rules is compared with."""

import math


def uncertainty(confidence: float, margin: float, entropy: float) -> float:
    """Return the larger of the normalised entropy and the binary entropy of the two most probable classes.

    The entropy of all classes alone hides a tie: between two of many classes it is far below 1. With two
    classes both are the same.

    Args:
        confidence: Probability of the most probable class.
        margin: That probability less the second one's.
        entropy: Entropy of all probabilities, normalised to 1.

    Returns:
        0 (certain) to 1 (a tie, or all classes equally probable). NaN if an input is NaN or the first two are
        no probabilities; NaN is not below any threshold, so it must count as uncertain.
    """
    second = confidence - margin
    total = confidence + second
    share = second / total if total else 0.5
    if not 0.0 <= share <= 1.0 or math.isnan(entropy):  # NaN fails both comparisons
        return math.nan
    return max(entropy, _binary_entropy(share))


def _binary_entropy(share: float) -> float:
    other = 1.0 - share
    if not share or not other:  # 0 log 0 is 0
        return 0.0
    return min(1.0, -share * math.log2(share) - other * math.log2(other))  # rounding can exceed 1
