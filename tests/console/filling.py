"""Fill a running console with versions, labels, a rollout and all else that the pages with figures show."""

from pathlib import Path
from typing import Any

import numpy as np
from msgspec import structs

from bus.mqtt.presence import now_ms
from cloud.dataset.dead_letters import Bounds, DeadLetter, DeadLetterTable
from cloud.dataset.labels import Label
from cloud.evaluation.metrics import Metrics
from cloud.evaluation.paired_comparison import Comparison
from cloud.evaluation.promotion_gate import Verdict
from cloud.registry.gold_mistakes import GoldMistake, GoldMistakes
from cloud.registry.model_card import Candidate
from cloud.registry.registry import Registry, read_bundle
from cloud.registry.rollout_state import Rollout, RolloutFile, Rules, Step
from cloud.rollout.releases import release_of
from demo.synthetic import CLASSES
from schemas.messages import CanaryReport, Policy, ServedModel, VersionStats
from schemas.policy_rules import HarvestRules
from schemas.topics import CLOUD, POLICY
from tests.cloud.bundles import bundle, card
from tests.console.conftest import sample

LABELLED = 90
GROUPS = [["edge-1"], ["edge-2", "edge-3"]]
_DIMENSIONS = 24


def fill(console: Any) -> None:
    """Fill everything; the labels are doubtful for one photo, and wrong answers of version 1 are four."""
    models = Path(console.config.models)
    fill_models(models)
    fill_dataset(console)
    fill_mistakes(console)
    begin_rollout(models)
    fill_broker(console)


def fill_models(models: Path) -> None:
    """Write two versions: the second was promoted over the first."""
    same = Comparison(240, 0.9, 0.95, 6, 18, 0.02, 0.01, 0.09)
    first = structs.replace(
        card(1),
        classes=list(CLASSES),
        metrics=_metrics([[52, 8], [9, 51]]),
        examples_used={name: {"human": 20} for name in CLASSES},
    )
    second = structs.replace(
        card(2),
        classes=list(CLASSES),
        parent=1,
        created_at="2026-11-29T08:00:00+00:00",
        metrics=_metrics([[57, 3], [4, 56]]),
        examples_used={name: {"human": 40, "teacher": 30} for name in CLASSES},
        candidates=[Candidate("human", 80, 80, 0.21, 0.93, 0.94)],
        verdict=Verdict(
            "promote", 1, ["accuracy on gold +5.0 points (95 % interval +1.0 to +9.0)"], same, None, None
        ),
    )
    for one in (first, second):
        Registry(models).write_card(one)


def fill_mistakes(console: Any) -> None:
    """Write what version 2 answered wrong on gold; of one photo the label has been corrected since."""
    rows = list(console.store.scan(["photo_id", "human_label"], where="human_label IS NOT NULL", limit=7))
    labels = [str(row["human_label"]) for row in rows]
    others = [CLASSES[1 - CLASSES.index(label)] for label in labels]
    found = [
        GoldMistake(str(row["photo_id"]), other, label, 0.99 - at / 20)
        for at, (row, label, other) in enumerate(zip(rows, labels, others, strict=True))
    ]
    found[-1] = structs.replace(found[-1], answer=labels[-1], truth=others[-1])
    gone = GoldMistake("f" * 32, *CLASSES, 0.6)
    registry = Registry(Path(console.config.models))
    registry.write_gold_mistakes(GoldMistakes(120, 8, [*found, gone]), registry.version_dir(2))


def _metrics(confusion: list[list[int]]) -> Metrics:
    photos, right = sum(map(sum, confusion)), confusion[0][0] + confusion[1][1]
    recall = {name: row[at] / sum(row) for at, (name, row) in enumerate(zip(CLASSES, confusion, strict=True))}
    return Metrics(
        photos, right / photos, right / photos - 0.06, right / photos + 0.04, recall, confusion, 0.03, 0.9
    )


def fill_dataset(console: Any) -> None:
    """Store labelled samples with embeddings, one of them wrong, and one that cannot be stored."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(100, 100 + LABELLED):
        shown = CLASSES[number % 2]
        vector = generator.normal(0, 0.25, _DIMENSIONS).astype("<f4")
        vector[0] += 2 * (number % 2)
        rows.append(
            sample(
                number,
                embedding=vector.tobytes(),
                lane="audit" if number % 3 == 0 else "hard",
                inclusion=0.1 if number % 3 == 0 else None,
                edge_label=CLASSES[1 - number % 2] if number < 104 else shown,
                model_version=2 if number >= 160 else 1,
                device_group="" if number < 160 else "hall" if number < 175 else "cellar",
            )
        )
    console.store.upsert(rows)
    truth = [CLASSES[number % 2] for number in range(100, 100 + LABELLED)]
    truth[20] = CLASSES[1 - 120 % 2]
    console.doubtful = rows[20].photo_id
    console.embedded = rows[0].photo_id
    console.store.label(
        [
            Label(photo_id=row.photo_id, label=label, by="maria", at_ms=now_ms())
            for row, label in zip(rows, truth, strict=True)
        ]
    )
    letter = DeadLetter(
        photo_id="7" * 32,
        node="edge-1",
        reason="image: expected a JPEG frame header and a scan, got the end in 3 bytes",
        received_at_ms=now_ms(),
        payload=b"\xff\xd8",
    )
    DeadLetterTable.open(console.config.dataset).put([letter], Bounds(100, 1_000_000))


def begin_rollout(models: Path, **changes: object) -> Rollout:
    """Write the state of a rollout of version 2 that is in its canary stage."""
    one, two = (release_of(read_bundle(bundle(models, number)), "edge-1", "pets") for number in (1, 2))
    state = Rollout(
        champion=one,
        challenger=two,
        groups=GROUPS,
        steps=[Step("shadow", photos=200), Step("canary", 0.1, 200), Step("all")],
        rules=Rules(disagreement=0.2),
        since_ms=now_ms() - 60_000,
        began_ms=now_ms() - 120_000,
        step=1,
    )
    state = structs.replace(state, **changes)
    RolloutFile(models / "rollout-2.json").write(state)
    return state


def report(photos: int, since_ms: int) -> CanaryReport:
    """Return a canary report after some photos."""
    return CanaryReport(
        stage="canary",
        champion=VersionStats(version=1, answered=9 * photos, failed=1, p95_ms=18.2),
        challenger=VersionStats(version=2, answered=photos, p95_ms=19.4),
        compared=photos,
        disagreed=photos // 14,
        since_ms=since_ms,
    )


def fill_broker(console: Any) -> None:
    """Report a fleet, a rollout that grows, answers and a policy."""
    state = RolloutFile(Path(console.config.models) / "rollout-2.json").read()
    assert state is not None
    served = ServedModel(name="pets", version=1, state="available")
    counters = {
        "outbox.accepted": 412,
        "outbox.answered": 409,
        "photo.received": 3120,
        "photo.rejected_corrupt-image": 4,
        "photo.shed": 11,
    }
    console.report(
        model=served,
        counters=counters,
        clock_offsets_s={"pi-2": 94.0},
        canary=report(150, state.since_ms + 1),
    )
    console.report(node="edge-2", model=served, counters={"outbox.accepted": 20, "outbox.answered": 20})
    console.report(node="edge-3", state="offline", reason="the connection broke")
    for device in ("pi-1", "pi-2"):
        console.report(name=device, counters={"outbox.accepted": 80, "outbox.answered": 79})
    console.report(node=CLOUD, name="collector", state="degraded", reason="dataset: the disk is full")
    for photos in range(10, 151, 10):
        console.report(node=CLOUD, name="rollout", canary=report(photos, state.since_ms + 1))
    for number in range(60):
        console.answer(
            device=f"pi-{number % 3 + 1}",
            label=CLASSES[number % 2],
            confidence=0.55 + 0.44 * (number % 7) / 6,
            margin=0.1 + 0.88 * (number % 7) / 6,
            entropy=0.95 - 0.9 * (number % 7) / 6,
            harvest=("auto", "hard", "near-duplicate", "between-thresholds")[number % 4],
        )
    policy = Policy(node="edge-1", harvest=HarvestRules(audit_share=0.05), issued_at_ms=now_ms())
    console.call(console.bus.publish(POLICY, policy, node="edge-1"))
