"""Audit statistics for tests that read no dataset."""

from cloud.evaluation.audit_stats import AuditStats


def audit(photos: int, correct: int, weight: float = 1.0) -> AuditStats:
    """Return the statistics of photos that were drawn with one probability."""
    return AuditStats.from_outcomes((number < correct, weight) for number in range(photos))
