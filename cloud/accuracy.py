"""How good each version is in service: people's labels for the photos that the lane audit drew at random."""

import msgspec

from cloud.alarms import Audit
from cloud.examples import AUDIT_LANE
from cloud.policy import Audited
from cloud.rows import Record
from cloud.store import PHOTOS, Store

_AUDITED = (
    f"{PHOTOS} AND origin = 'sample' AND lane = '{AUDIT_LANE}' AND human_label IS NOT NULL"
    " AND edge_label IS NOT NULL AND model_version IS NOT NULL"
)


def audits(store: Store) -> dict[int, Audit]:
    """Return the audit of each model version that has audited photos."""
    columns = ["model_version", "edge_label", "human_label"]
    found: dict[int, Audit] = {}
    for row in store.scan(columns, where=_AUDITED):
        version, right = _judged(row)
        before = found.get(version, Audit(0, 0))
        found[version] = Audit(before.photos + 1, before.right + right)
    return dict(sorted(found.items()))


def audited(store: Store, version: int) -> list[Audited]:
    """Return the audited photos of one model version."""
    rows = store.scan(Audited.__struct_fields__, where=f"{_AUDITED} AND model_version = {version}")
    return [msgspec.convert(row, Audited) for row in rows]


def _judged(row: Record) -> tuple[int, bool]:
    return row["model_version"], row["edge_label"] == row["human_label"]
