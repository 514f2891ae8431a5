"""How good each version is in service: people's labels for the photos that the lane audit drew at random."""

from collections import Counter

import msgspec

from cloud.alarms import Audit
from cloud.examples import AUDIT_LANE
from cloud.policy import Audited
from cloud.rows import Record
from cloud.store import NAMED, PHOTOS, Store
from schemas.messages import NEITHER

_ANSWERED = (
    f"{PHOTOS} AND origin = 'sample' AND lane = '{AUDIT_LANE}'"
    " AND edge_label IS NOT NULL AND model_version IS NOT NULL"
)
# No answer to a photo of neither can be right: it says nothing of how often the answers are.
_AUDITED = f"{_ANSWERED} AND {NAMED}"


def audits(store: Store) -> dict[int, Audit]:
    """Return the audit of each model version that has audited photos."""
    columns = ["model_version", "edge_label", "human_label"]
    found: dict[int, Audit] = {}
    for row in store.scan(columns, where=_AUDITED):
        version, right = _judged(row)
        before = found.get(version, Audit(0, 0))
        found[version] = Audit(before.photos + 1, before.right + right)
    return dict(sorted(found.items()))


def of_neither(store: Store) -> dict[int, int]:
    """Count, by model version, the audited photos that show none of the classes; they are in no audit."""
    rows = store.scan(["model_version"], where=f"{_ANSWERED} AND human_label = '{NEITHER}'")
    return dict(sorted(Counter(int(str(row["model_version"])) for row in rows).items()))


def audited(store: Store, version: int) -> list[Audited]:
    """Return the audited photos of one model version."""
    rows = store.scan(Audited.__struct_fields__, where=f"{_AUDITED} AND model_version = {version}")
    return [msgspec.convert(row, Audited) for row in rows]


def _judged(row: Record) -> tuple[int, bool]:
    return row["model_version"], row["edge_label"] == row["human_label"]
