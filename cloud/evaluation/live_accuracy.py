"""Accuracy of each version in service, read from the audited photos that it answered."""

from collections import Counter, defaultdict

import msgspec

from cloud.dataset.store import Store
from cloud.evaluation.audit_set import (
    AUDITED_WITH_ANSWER,
    NEITHER_WITH_ANSWER,
    AuditedPhoto,
    audited_answers,
)
from cloud.evaluation.audit_stats import RECENT_DAYS, AuditStats, RolloutAudits

_RECENT_MS = RECENT_DAYS * 86_400_000


def audit_stats_by_version(store: Store, condition: str = "TRUE") -> dict[int, AuditStats]:
    """Return the audit statistics of each model version that has audited photos.

    Args:
        store: The dataset.
        condition: SQL filter on the photos; all by default.

    Raises:
        TransientError: The dataset cannot be read now.
    """
    outcomes: defaultdict[int, list[tuple[bool, float]]] = defaultdict(list)
    for answer in audited_answers(store, condition):
        outcomes[answer.model_version].append(answer.outcome)
    return {version: AuditStats.from_outcomes(outcomes[version]) for version in sorted(outcomes)}


def audit_stats_by_variant(store: Store) -> dict[int, dict[str, AuditStats]]:
    """Return the audit statistics of each variant, of versions that several variants answered for.

    Edges of one version can serve different variants, each the one that its processor gains from. An answer
    by the graph, or by a model server that does not tell, counts under an empty name.

    Raises:
        TransientError: The dataset cannot be read now.
    """
    outcomes: defaultdict[int, defaultdict[str, list[tuple[bool, float]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for answer in audited_answers(store):
        outcomes[answer.model_version][answer.model_variant or ""].append(answer.outcome)
    return {
        version: {name: AuditStats.from_outcomes(one) for name, one in sorted(outcomes[version].items())}
        for version in sorted(outcomes)
        if len(outcomes[version]) > 1
    }


def rollout_audits(store: Store, champion: int, challenger: int, since_ms: int) -> RolloutAudits:
    """Return the audits of both versions of a rollout.

    Args:
        store: The dataset.
        champion: Its version.
        challenger: Its version.
        since_ms: When the rollout began, UTC.

    Raises:
        TransientError: The dataset cannot be read now.
    """
    both, nothing = f"model_version IN ({champion}, {challenger})", AuditStats()
    # Two periods, so that a rollout with enough audits of the champion ignores the days before it.
    since = audit_stats_by_version(store, f"{both} AND received_at_ms >= {since_ms}")
    before = audit_stats_by_version(
        store, f"{both} AND received_at_ms < {since_ms} AND received_at_ms >= {since_ms - _RECENT_MS}"
    )
    return RolloutAudits(
        challenger=since.get(challenger, nothing),
        champion=since.get(champion, nothing),
        champion_before=before.get(champion, nothing),
    )


def count_neither(store: Store) -> dict[int, int]:
    """Count, by model version, the audited photos that show none of the classes.

    They are in no audit statistics: no answer to them could be correct.
    """
    rows = store.scan(["model_version"], where=NEITHER_WITH_ANSWER)
    return dict(sorted(Counter(int(str(row["model_version"])) for row in rows).items()))


def audited_photos(store: Store, version: int) -> list[AuditedPhoto]:
    """Return the audited photos that one model version answered."""
    rows = store.scan(
        AuditedPhoto.__struct_fields__, where=f"{AUDITED_WITH_ANSWER} AND model_version = {version}"
    )
    return [msgspec.convert(row, AuditedPhoto) for row in rows]
