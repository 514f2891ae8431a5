"""Accuracy of each version in service, also at each group of devices, by audited photos that it answered."""

from collections import Counter, defaultdict
from collections.abc import Mapping

from cloud.dataset.rows.typed_rows import typed_rows
from cloud.dataset.store import Store
from cloud.dataset.training_set import GROUP_COLUMN
from cloud.evaluation.audit_set import (
    AUDITED_WITH_ANSWER,
    NEITHER_WITH_ANSWER,
    AuditedAnswer,
    AuditedPhoto,
    audited_answers,
)
from cloud.evaluation.audit_stats import MIN_AUDITS, RECENT_DAYS, AuditStats, RolloutAudits

_RECENT_MS = RECENT_DAYS * 86_400_000
_VARIANT_COLUMN = "model_variant"


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


def audit_stats_by_group(store: Store, condition: str = "TRUE") -> dict[int, dict[str, AuditStats]]:
    """Return the audit statistics of each version at each group of devices that has audited photos.

    A photo counts for the group that its device was in when it was answered. Photos of no group are left out.

    Args:
        store: The dataset.
        condition: SQL filter on the photos; all by default.

    Raises:
        TransientError: The dataset cannot be read now.
    """
    grouped = f"{AUDITED_WITH_ANSWER} AND coalesce({GROUP_COLUMN}, '') != ''"
    return _audit_stats_by(store, GROUP_COLUMN, f"{grouped} AND ({condition})")


def audit_stats_by_variant(store: Store) -> dict[int, dict[str, AuditStats]]:
    """Return the audit statistics of each variant, of versions that several variants answered for.

    Edges of one version can serve different variants, each the one that its processor gains from. An answer
    by the graph, or by a model server that does not report it, counts under an empty name.

    Raises:
        TransientError: The dataset cannot be read now.
    """
    found = _audit_stats_by(store, _VARIANT_COLUMN, AUDITED_WITH_ANSWER)
    return {version: variants for version, variants in found.items() if len(variants) > 1}


def _audit_stats_by(store: Store, column: str, where: str) -> dict[int, dict[str, AuditStats]]:
    """Return the audit statistics of each version by a column of text; none in a dataset without it."""
    if not store.has_column(column):
        return {}
    outcomes: defaultdict[tuple[int, str], list[tuple[bool, float]]] = defaultdict(list)
    for row in store.scan((*AuditedAnswer.__struct_fields__, column), where=where):
        for answer in typed_rows([row], AuditedAnswer):
            outcomes[answer.model_version, str(row[column] or "")].append(answer.outcome)
    found: defaultdict[int, dict[str, AuditStats]] = defaultdict(dict)
    for version, value in sorted(outcomes):
        found[version][value] = AuditStats.from_outcomes(outcomes[version, value])
    return dict(found)


def told_accuracies(store: Store, version: int) -> dict[str, float]:
    """Return the accuracy of a version at `all` devices and at its `worst_group`, by `MIN_AUDITS` at least.

    Raises:
        TransientError: The dataset cannot be read now.
    """
    answered = f"model_version = {version}"
    found = {
        "all": audit_stats_by_version(store, answered).get(version, AuditStats()),
        "worst_group": worst_group(audit_stats_by_group(store, answered).get(version, {})),
    }
    return {name: audits.accuracy for name, audits in found.items() if audits.effective_size >= MIN_AUDITS}


def worst_group(groups: Mapping[str, AuditStats]) -> AuditStats:
    """Return the audits of the least accurate group of those with `MIN_AUDITS`; none if no group has them."""
    told = [audits for audits in groups.values() if audits.effective_size >= MIN_AUDITS]
    return min(told, key=lambda audits: audits.accuracy, default=AuditStats())


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
    return list(typed_rows(rows, AuditedPhoto))
