"""What people say of versions that no test has to ask."""

from cloud.evaluation.audit_stats import Audit


def audit(photos: int, right: int, weight: float = 1.0) -> Audit:
    """Return an audit of photos that were drawn with one probability."""
    return Audit.of((number < right, weight) for number in range(photos))
