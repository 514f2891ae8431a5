"""Rules of console/analysis/rollout_view.py: a rollout as its state and the edges describe it."""

from msgspec import structs

from console.analysis.rollout_view import MAX_POINTS, growth, rollout_view
from tests.cloud.rollout.test_state_machine import rollout, trying


def test_stages_before_the_present_one_are_done():
    """Of the present group; groups behind it are ahead with all their stages."""
    state = rollout(["edge-1", "edge-2"], ["edge-3"], step=1, skipped=["edge-2"])
    status = trying(state, photos=20)
    view = rollout_view(state, {"edge-1": status}, [], state.since_ms + 1000)
    assert [stage.progress for stage in view.groups[0].stages] == ["done", "current", "ahead", "ahead"]
    assert {stage.progress for stage in view.groups[1].stages} == {"ahead"}
    assert [(node.node, node.skipped, node.online) for node in view.nodes] == [
        ("edge-1", False, True),
        ("edge-2", True, False),
        ("edge-3", False, False),
    ]
    assert view.report.compared == 20
    assert view.next_step == "until it has classified 30 photos, 20 so far"
    done = rollout_view(structs.replace(state, phase="finished"), {}, [], state.since_ms)
    assert {stage.progress for group in done.groups for stage in group.stages} == {"done"}


def test_the_comparison_grows_with_its_photos():
    """Only reports of this stage and these versions, in a bounded number of points, with intervals."""
    state = rollout()
    report = trying(state).canary
    reports = [structs.replace(report, compared=n, disagreed=n // 10) for n in range(1, 600)]
    others = [
        structs.replace(report, stage="canary"),
        structs.replace(report, since_ms=1),
        structs.replace(report, compared=0),
    ]
    points = growth(state, [*others, *reports, reports[3]])
    assert (points[0].photos, points[-1].photos) == (1, 599)
    assert len(points) <= MAX_POINTS + 1
    assert growth(state, []) == []
    assert points[-1].low < points[-1].share < points[-1].high < 0.15
    assert [one.photos for one in points] == sorted(one.photos for one in points)
