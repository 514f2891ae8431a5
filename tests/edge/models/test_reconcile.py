"""One table row per state of a deployment: what is desired, what is observed, and the next action."""

from dataclasses import replace

import pytest
from msgspec import structs

from edge.models import actions as act
from edge.models.observation import Attempt, Folder, Observation, Server
from edge.models.reconcile import LOADS, STABLE_AFTER_S, canary_plan, reconcile
from edge.serving.traffic_split import TrafficSplit
from schemas.messages import Release, ServedModel

ALL = Release(
    node="edge-1",
    model="pets",
    version=2,
    url="file:///2.tar",
    sha256="2" * 64,
    size_bytes=1,
    classes=["cat", "dog"],
    released_at_ms=20,
)
SHADOW = structs.replace(ALL, stage="shadow", baseline=1, released_at_ms=10)
CANARY = structs.replace(SHADOW, stage="canary", share=0.5, released_at_ms=11)
OTHER_BUNDLE = structs.replace(ALL, sha256="f" * 64)

AVAILABLE_1, AVAILABLE_2 = (
    ServedModel(name="pets", version=version, state="available") for version in (1, 2)
)
LOADING_2 = ServedModel(name="pets", version=2, state="loading")
ABSENT = ServedModel(name="pets", state="absent", reason="no route")
ABSENT_2 = ServedModel(name="pets", version=2, state="absent", reason="no route")

PINNED_1, PINNED_2 = TrafficSplit(pinned=1), TrafficSplit(pinned=2)
PREPARING = TrafficSplit.preparing(canary_plan(CANARY))
RUNNING = PREPARING.with_challenger(ready=True)
OTHER_CANARY = TrafficSplit.preparing(canary_plan(structs.replace(CANARY, version=9))).with_challenger(
    ready=True
)

ONE = Folder(versions=frozenset({1}))
BOTH = Folder(versions=frozenset({1, 2}))
MARKED = replace(BOTH, unproven=frozenset({(2, ALL.sha256)}))
STAGED = replace(ONE, canary=frozenset({1, 2}))
PROMOTED = replace(BOTH, canary=frozenset({1, 2}))
FETCHED = Attempt(fetched=True)
ACTIVATED = Attempt(activated=True, deployed=True)


def with_bundle(folder: Folder) -> Folder:
    """Return a folder with the fetched bundle of the desired version."""
    return replace(folder, fetched=True)


def serving(model: ServedModel) -> Server:
    return Server(in_service=model)


def with_canary(challenger: ServedModel, champion: ServedModel = AVAILABLE_1) -> Server:
    return Server(champion=champion, challenger=challenger)


# What is desired and observed, and the action, or its class where the reason is checked below.
WITHOUT_FOLDER = {
    "unknown": ({"folder": None}, act.Record()),
    "recorded": ({"folder": None, "recorded": ALL}, act.Nothing()),
    "recorded-otherwise": ({"folder": None, "recorded": OTHER_BUNDLE}, act.Record()),
    "canary": ({"folder": None, "release": CANARY}, act.Refuse),
}

REPLACE = {
    "first-release": ({"folder": Folder(), "server": serving(ABSENT)}, act.Fetch()),
    "not-here": ({}, act.Fetch()),
    "fetched-by-a-killed-run": ({"folder": with_bundle(ONE)}, act.Fetch()),
    "fetched-and-gone": ({"attempt": FETCHED}, act.Fetch()),
    "fetched": ({"folder": with_bundle(ONE), "attempt": FETCHED}, act.Activate(promote=False)),
    "fetched-after-a-removal": (
        {"folder": with_bundle(ONE), "attempt": FETCHED, "rescan_in_s": 1.5},
        act.WaitForRescan(1.5),
    ),
    "bundle-invalid": ({"attempt": Attempt(invalid="sha256 differs")}, act.Fail("sha256 differs")),
    "recorded-but-pruned": ({"recorded": ALL}, act.Fetch()),
    "older-than-in-service": ({"folder": Folder(versions=frozenset({2, 5}))}, act.Fetch()),
    "placed-not-served-unknown": ({"folder": BOTH}, act.Fetch()),
    "placed-server-away-unknown": ({"folder": BOTH, "server": serving(ABSENT)}, act.Fetch()),
    "placed-server-away-known": (
        {"folder": BOTH, "server": serving(ABSENT), "recorded": ALL},
        act.Wait,
    ),
    "placed-server-away-without-manifest": (
        {"folder": replace(BOTH, verifiable=False), "server": serving(ABSENT), "recorded": ALL},
        act.Fetch(),
    ),
    "other-canary-runs": ({"folder": STAGED, "split": OTHER_CANARY}, act.StopSplit()),
    "other-canary-stopped": ({"folder": STAGED, "split": PINNED_1}, act.Fetch()),
    "other-canary-fetched": (
        {"folder": with_bundle(STAGED), "split": PINNED_1, "attempt": FETCHED},
        act.EndCanary(),
    ),
    "pinned-without-canary": (
        {"folder": with_bundle(ONE), "split": PINNED_1, "attempt": FETCHED},
        act.EndCanary(),
    ),
}

TORN = {
    "server-away": (
        {"folder": replace(BOTH, damage="x"), "server": serving(ABSENT_2), "recorded": ALL},
        act.Displace("x"),
    ),
    "older-one-answers": (
        {"folder": replace(BOTH, damage="x"), "server": serving(AVAILABLE_1), "recorded": ALL},
        act.Displace("x"),
    ),
    "still-in-memory": (
        {"folder": replace(BOTH, damage="x"), "server": serving(AVAILABLE_2), "recorded": ALL},
        act.Fetch(),
    ),
    "still-in-memory-fetched": (
        {
            "folder": replace(with_bundle(BOTH), damage="x"),
            "server": serving(AVAILABLE_2),
            "recorded": ALL,
            "attempt": FETCHED,
        },
        act.Activate(promote=False),
    ),
    "unproven": (
        {"folder": replace(MARKED, damage="x"), "server": serving(ABSENT_2)},
        act.Displace("x"),
    ),
    "without-a-record": ({"folder": replace(BOTH, damage="x")}, act.Displace("x")),
    "not-in-place": ({"folder": replace(ONE, damage="x")}, act.Fetch()),
    "promoted-canary": (
        {"folder": replace(PROMOTED, damage="x"), "server": serving(ABSENT_2), "recorded": ALL},
        act.Displace("x"),
    ),
}

PROMOTE = {
    "canary-runs": ({"folder": STAGED, "split": RUNNING, "recorded": CANARY}, act.Restore()),
    "canary-runs-with-another-bundle": (
        {"folder": STAGED, "split": RUNNING, "recorded": OTHER_BUNDLE},
        act.StopSplit(),
    ),
    "canary-not-ready": ({"folder": STAGED, "split": PREPARING, "recorded": CANARY}, act.StopSplit()),
    "canary-of-an-earlier-run": ({"folder": STAGED, "split": PINNED_1, "recorded": CANARY}, act.Restore()),
    "canary-of-an-earlier-run-restored": (
        {"folder": with_bundle(STAGED), "split": PINNED_1, "recorded": CANARY, "attempt": FETCHED},
        act.EndCanary(),
    ),
    "restored": (
        {"folder": with_bundle(STAGED), "split": RUNNING, "recorded": CANARY, "attempt": FETCHED},
        act.Activate(promote=True),
    ),
    "activated": (
        {"folder": PROMOTED, "split": PINNED_2, "recorded": CANARY, "attempt": ACTIVATED},
        act.ServeNewest(),
    ),
    "served-from-its-place": (
        {
            "folder": PROMOTED,
            "split": PINNED_2,
            "recorded": CANARY,
            "attempt": replace(ACTIVATED, reloaded=True),
        },
        act.SmokeTest(alone=True),
    ),
    "passed": (
        {
            "folder": PROMOTED,
            "split": PINNED_2,
            "recorded": CANARY,
            "attempt": replace(ACTIVATED, reloaded=True, tested=True),
        },
        act.Record(),
    ),
    "recorded": (
        {
            "folder": PROMOTED,
            "split": PINNED_2,
            "recorded": ALL,
            "attempt": replace(ACTIVATED, reloaded=True, tested=True),
        },
        act.EndCanary(),
    ),
    "failed": (
        {
            "folder": PROMOTED,
            "split": PINNED_2,
            "recorded": CANARY,
            "attempt": replace(ACTIVATED, reloaded=True, tested=True, problem="no memory"),
        },
        act.Rollback,
    ),
    "after-a-wait": (
        {"folder": PROMOTED, "split": PINNED_2, "recorded": CANARY, "server": serving(AVAILABLE_2)},
        act.Record(),
    ),
    "after-a-wait-server-away": (
        {"folder": PROMOTED, "split": PINNED_2, "recorded": CANARY, "server": serving(ABSENT_2)},
        act.Wait,
    ),
}

PROVE = {
    "killed-before-verdict": (
        {"folder": MARKED, "server": serving(AVAILABLE_1)},
        act.SmokeTest(alone=True),
    ),
    "killed-before-verdict-and-recorded": (
        {"folder": MARKED, "recorded": ALL},
        act.SmokeTest(alone=True),
    ),
    "killed-before-all-stepped-aside": (
        {"folder": replace(MARKED, versions=frozenset({1, 2, 5}))},
        act.Revert(),
    ),
    "killed-before-verdict-passed": (
        {"folder": MARKED, "recorded": ALL, "attempt": Attempt().with_test(None)},
        act.Record(),
    ),
    "killed-before-verdict-other-bundle": (
        {"folder": replace(BOTH, unproven=frozenset({(2, "f" * 64)}))},
        act.Revert(),
    ),
    "killed-before-verdict-other-version": (
        {"folder": replace(BOTH, unproven=frozenset({(3, ALL.sha256)}))},
        act.Revert(),
    ),
    "activated": ({"folder": BOTH, "attempt": ACTIVATED}, act.SmokeTest(alone=True)),
    "activated-again": ({"folder": BOTH, "attempt": ACTIVATED, "recorded": ALL}, act.SmokeTest(alone=True)),
    "server-lost-twice": (
        {"folder": BOTH, "attempt": replace(ACTIVATED, losses=LOADS - 1, problem="gone")},
        act.SmokeTest(alone=True),
    ),
    "server-lost-too-often": (
        {"folder": BOTH, "attempt": replace(ACTIVATED, losses=LOADS, problem="gone")},
        act.Rollback,
    ),
    "failed": ({"folder": BOTH, "attempt": ACTIVATED.with_test("wrong shape")}, act.Rollback),
    "passed": ({"folder": BOTH, "attempt": ACTIVATED.with_test(None)}, act.Record()),
    "recorded": ({"folder": BOTH, "attempt": ACTIVATED.with_test(None), "recorded": ALL}, act.Nothing()),
    "old-versions-left": (
        {
            "folder": Folder(versions=frozenset({0, 1, 2})),
            "attempt": ACTIVATED.with_test(None),
            "recorded": ALL,
        },
        act.Prune(),
    ),
    "stepped-aside": (
        {"folder": replace(BOTH, leftovers=True), "attempt": ACTIVATED.with_test(None), "recorded": ALL},
        act.Prune(),
    ),
    "not-removable": (
        {
            "folder": replace(BOTH, leftovers=True),
            "attempt": replace(ACTIVATED.with_test(None), pruned=True),
            "recorded": ALL,
        },
        act.Nothing(),
    ),
}

IN_SERVICE = {
    "by-hand": ({}, act.SmokeTest(alone=True)),
    "by-a-killed-run": ({"attempt": Attempt().with_test("wrong shape")}, act.Rollback),
    "passed": ({"attempt": Attempt().with_test(None)}, act.Record()),
    "proven": ({"recorded": ALL}, act.Nothing()),
    "released-again": ({"recorded": structs.replace(ALL, released_at_ms=1)}, act.Record()),
    "recorded-as-canary-only": ({"recorded": CANARY}, act.SmokeTest(alone=True)),
    "other-bundle": ({"recorded": OTHER_BUNDLE}, act.Fail),
    "other-classes": (
        {"recorded": ALL, "folder": replace(BOTH, mismatch="other classes")},
        act.Fail("other classes"),
    ),
    "canary-of-another-version": (
        {"folder": replace(BOTH, canary=frozenset({2, 3})), "split": PINNED_2},
        act.Record(),
    ),
    "canary-of-another-version-recorded": (
        {"folder": replace(BOTH, canary=frozenset({2, 3})), "split": PINNED_2, "recorded": ALL},
        act.EndCanary(),
    ),
}

LOAD_CHALLENGER = {
    "killed-before-verdict": ({"folder": MARKED}, act.Revert()),
    "no-baseline": ({"release": structs.replace(CANARY, baseline=None)}, act.Refuse),
    "other-champion": ({"folder": Folder(versions=frozenset({7}))}, act.Refuse),
    "no-version": ({"folder": Folder()}, act.Refuse),
    "against-itself": ({"folder": BOTH, "release": structs.replace(CANARY, baseline=2)}, act.Refuse),
    "champion-away": ({"server": with_canary(ABSENT_2, ABSENT)}, act.Wait),
    "champion-loading": (
        {"server": with_canary(ABSENT_2, ServedModel(name="pets", version=1, state="loading"))},
        act.Wait,
    ),
    "not-here": ({}, act.Fetch()),
    "invalid": ({"attempt": Attempt(invalid="no tar")}, act.Fail("no tar")),
    "given-up-before": ({"loads": LOADS}, act.RejectCanary),
    "fetched": ({"folder": with_bundle(ONE), "attempt": FETCHED}, act.StageCanary()),
    "fetched-after-a-removal": (
        {"folder": with_bundle(ONE), "attempt": FETCHED, "rescan_in_s": 0.5},
        act.WaitForRescan(0.5),
    ),
    "other-canary": (
        {"folder": replace(ONE, canary=frozenset({1, 9})), "split": OTHER_CANARY},
        act.EndCanary(),
    ),
    "other-bundle-staged": ({"folder": STAGED, "recorded": OTHER_BUNDLE}, act.EndCanary()),
    "not-recorded": ({"folder": STAGED}, act.EndCanary()),
    "recorded-at-another-stage": ({"folder": STAGED, "recorded": SHADOW}, act.Record()),
    "staged": ({"folder": STAGED, "recorded": CANARY}, act.ServeBoth(count_load=True)),
    "staged-and-still-loaded": (
        {"folder": STAGED, "recorded": CANARY, "server": with_canary(AVAILABLE_2), "split": PINNED_1},
        act.ServeBoth(count_load=False),
    ),
    "told": (
        {
            "folder": STAGED,
            "recorded": CANARY,
            "split": PREPARING,
            "loads": LOADS,
            "attempt": Attempt(served_both=True),
        },
        act.SmokeTest(alone=False),
    ),
    "passed": (
        {
            "folder": STAGED,
            "recorded": CANARY,
            "split": PREPARING,
            "server": with_canary(AVAILABLE_2),
            "attempt": Attempt(served_both=True).with_test(None),
        },
        act.StartSplit(),
    ),
    "passed-and-lost": (
        {
            "folder": STAGED,
            "recorded": CANARY,
            "split": PREPARING,
            "loads": LOADS - 1,
            "attempt": Attempt(served_both=True).with_test(None),
        },
        act.ServeBoth(count_load=True),
    ),
    "failed": (
        {
            "folder": STAGED,
            "recorded": CANARY,
            "split": PREPARING,
            "server": with_canary(LOADING_2),
            "attempt": Attempt(served_both=True).with_test("wrong shape"),
        },
        act.RejectCanary,
    ),
    "failed-and-champion-away": (
        {
            "folder": STAGED,
            "recorded": CANARY,
            "split": PREPARING,
            "server": with_canary(ABSENT_2, ABSENT),
            "attempt": Attempt(served_both=True).with_test("no answer"),
        },
        act.Wait,
    ),
    "lost-too-often": (
        {"folder": STAGED, "recorded": CANARY, "split": PREPARING, "loads": LOADS},
        act.RejectCanary,
    ),
}

KEEP_CANARY = {
    "as-released": ({}, act.Nothing()),
    "other-stage": ({"release": SHADOW}, act.FollowPlan()),
    "other-share": ({"release": structs.replace(CANARY, share=0.9)}, act.FollowPlan()),
    "followed": ({"recorded": SHADOW}, act.Record()),
    "loaded-for-long": ({"loads": 2, "ready_for_s": STABLE_AFTER_S + 1}, act.ForgetLoads()),
    "loaded-for-long-at-once": ({"ready_for_s": STABLE_AFTER_S + 1}, act.Nothing()),
    "loaded-not-long": ({"loads": 2, "ready_for_s": STABLE_AFTER_S - 1}, act.Nothing()),
    "challenger-lost": ({"server": with_canary(ABSENT_2), "loads": LOADS}, act.PauseSplit()),
    "server-restarted": (
        {"server": with_canary(ABSENT_2), "split": PREPARING, "loads": 1},
        act.ServeBoth(count_load=True),
    ),
    "server-away": ({"server": with_canary(ABSENT_2, ABSENT), "split": PREPARING, "loads": LOADS}, act.Wait),
    "server-restarted-too-often": (
        {"server": with_canary(ABSENT_2), "split": PREPARING, "loads": LOADS},
        act.RejectCanary,
    ),
    "found-missing-and-back": ({"split": PREPARING}, act.ServeBoth(count_load=False)),
    "newer-version-by-hand": ({"folder": replace(STAGED, versions=frozenset({1, 8}))}, act.Nothing()),
}

TABLE = [
    pytest.param(
        {"release": ALL, "folder": ONE, "server": serving(AVAILABLE_1)} | defaults | given,
        wanted,
        id=f"{group}-{name}",
    )
    for group, defaults, rows in (
        ("without-folder", {}, WITHOUT_FOLDER),
        ("replace", {}, REPLACE),
        ("torn", {}, TORN),
        ("promote", {"server": serving(AVAILABLE_1)}, PROMOTE),
        ("prove", {"server": serving(AVAILABLE_2)}, PROVE),
        ("in-service", {"folder": BOTH, "server": serving(AVAILABLE_2)}, IN_SERVICE),
        ("load-challenger", {"release": CANARY, "server": with_canary(ABSENT_2)}, LOAD_CHALLENGER),
        (
            "keep-canary",
            {
                "release": CANARY,
                "recorded": CANARY,
                "folder": STAGED,
                "split": RUNNING,
                "server": with_canary(AVAILABLE_2),
            },
            KEEP_CANARY,
        ),
    )
    for name, (given, wanted) in rows.items()
]


@pytest.mark.parametrize(("given", "wanted"), TABLE)
def test_next_action(given, wanted):
    """Each observed state has one next action."""
    action = reconcile(Observation(**given))
    assert isinstance(action, wanted) if isinstance(wanted, type) else action == wanted


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (
            {"release": CANARY, "folder": None},
            (
                "cannot serve model pets version 2 as canary: models_dir is not configured; set it to the "
                "folder that the model server watches"
            ),
        ),
        (
            {"release": structs.replace(CANARY, baseline=None)},
            "release of model pets version 2 as canary names no baseline version",
        ),
        (
            {"release": structs.replace(CANARY, baseline=7), "folder": ONE},
            "cannot evaluate version 2 against version 7: version 1 is in service",
        ),
        (
            {"release": CANARY, "folder": ONE, "server": with_canary(ABSENT_2, ABSENT)},
            "version 1 is not served: no route",
        ),
        (
            {"folder": BOTH, "server": serving(ABSENT), "recorded": ALL},
            "model pets version 2 is in place, but the model server does not serve it: no route",
        ),
        (
            {"folder": BOTH, "server": serving(AVAILABLE_2), "recorded": OTHER_BUNDLE},
            (
                f"model pets version 2 is in service with sha256 {'f' * 64}, not with the released "
                f"{'2' * 64}; release the new bundle under a new version"
            ),
        ),
        (
            {"folder": BOTH, "attempt": ACTIVATED.with_test("wrong shape")},
            "model pets version 2 failed its smoke test: wrong shape",
        ),
        (
            {"folder": BOTH, "attempt": replace(ACTIVATED, losses=LOADS, problem="gone")},
            "model pets version 2 failed its smoke test: the model server went away 3 times: gone",
        ),
        (
            {"release": CANARY, "folder": ONE, "server": with_canary(ABSENT_2), "loads": LOADS},
            (
                "model pets version 2 failed as the challenger of version 1: the model server lost it "
                "after 3 loads"
            ),
        ),
    ],
)
def test_reason_names_the_versions_and_what_to_do(given, reason):
    """The sentence is published in an event and shown by `gleaner cloud release --wait`."""
    assert reconcile(Observation(**({"release": ALL} | given))).reason == reason
