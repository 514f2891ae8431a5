"""How good each version is in service, by the audited photos that it answered."""

from collections import Counter, defaultdict

import msgspec

from cloud.dataset.store import Store
from cloud.evaluation.audit_set import ANSWERED, NEITHER_ANSWERED, Audited, answers
from cloud.evaluation.audit_stats import RECENT_DAYS, Audit, Audits

_RECENT_MS = RECENT_DAYS * 86_400_000


def audits(store: Store, condition: str = "TRUE") -> dict[int, Audit]:
    """Return the audit of each model version that has audited photos.

    Args:
        store: The dataset.
        condition: Which photos count, in SQL; by default all.

    Raises:
        TransientError: The dataset cannot be read now.
    """
    judged: defaultdict[int, list[tuple[bool, float]]] = defaultdict(list)
    for answer in answers(store, condition):
        judged[answer.model_version].append(answer.judged)
    return {version: Audit.of(judged[version]) for version in sorted(judged)}


def trial_audits(store: Store, champion: int, challenger: int, since_ms: int) -> Audits:
    """Return what people say of both versions of a rollout.

    Args:
        store: The dataset.
        champion: Its version.
        challenger: Its version.
        since_ms: When the trial began, UTC.

    Raises:
        TransientError: The dataset cannot be read now.
    """
    both, nothing = f"model_version IN ({champion}, {challenger})", Audit()
    since = audits(store, f"{both} AND received_at_ms >= {since_ms}")
    before = audits(
        store, f"{both} AND received_at_ms < {since_ms} AND received_at_ms >= {since_ms - _RECENT_MS}"
    )
    return Audits(
        challenger=since.get(challenger, nothing),
        champion=since.get(champion, nothing),
        before=before.get(champion, nothing),
    )


def of_neither(store: Store) -> dict[int, int]:
    """Count, by model version, the audited photos that show none of the classes; they are in no audit."""
    rows = store.scan(["model_version"], where=NEITHER_ANSWERED)
    return dict(sorted(Counter(int(str(row["model_version"])) for row in rows).items()))


def audited(store: Store, version: int) -> list[Audited]:
    """Return the audited photos of one model version."""
    rows = store.scan(Audited.__struct_fields__, where=f"{ANSWERED} AND model_version = {version}")
    return [msgspec.convert(row, Audited) for row in rows]
