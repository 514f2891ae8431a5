"""Rules of console/analysis/fleet_view.py: queues and refusals, from the counters."""

from console.analysis.fleet_view import NodeGroup, fleet, found, refusals, shown, waiting_messages
from schemas.messages import Status


def status(node: str, name: str, **fields: object) -> Status:
    made = {"state": "online", "at_ms": 100_000, "since_ms": 1, "software": "1", "run_id": "1"}
    return Status(**({"node": node, "name": name} | made | fields))


def test_an_outbox_holds_what_came_and_has_not_left():
    """Of this run and of earlier ones; what is set aside is not waiting."""
    counters = {"photo.received": 9, "outbox.accepted": 7, "outbox.restored": 2, "outbox.answered": 5}
    assert waiting_messages(counters) == {"outbox": 4}
    assert waiting_messages(counters | {"outbox.set_aside": 1, "outbox.dropped_oldest": 3}) == {"outbox": 0}
    assert waiting_messages({"photo.received": 9}) == {}


def test_refusals_are_listed_by_their_number():
    """A photo that is not harvested is not a refusal: the rules intend it."""
    counters = {
        "photo.rejected_too-large": 2,
        "photo.shed": 5,
        "photo.received": 9,
        "harvest.refused_quota": 7,
        "round.finished": 3,  # it ends in a word of ours by chance
        "result.unpublished": 1,
        "result.ok": 3,
        "bus.overflowed": 0,
    }
    assert list(refusals(counters).items()) == [("photo.shed", 5), ("photo.rejected_too-large", 2)]


def test_components_are_grouped_by_node():
    """The cloud first, the edge before what else runs there, then the devices with their clocks."""
    found = fleet(
        [
            status("edge-1", "pi-2"),
            status("edge-1", "model-server", state="degraded"),
            status("edge-1", "edge", clock_offsets_s={"pi-1": 120.0}),
            status("edge-1", "pi-1", at_ms=1),
            status("cloud", "collector"),
        ],
        now_ms=100_000,
    )
    assert [group.node for group in found] == ["cloud", "edge-1"]
    assert [one.status.name for one in found[1].components] == ["edge", "model-server"]
    assert [(one.status.name, one.state, one.offset_s) for one in found[1].devices] == [
        ("pi-1", "silent", 120.0),
        ("pi-2", "online", None),
    ]


def test_what_is_shown_of_a_large_fleet_is_bounded():
    """In rows of all nodes together; how many rows and how many further nodes are left out is known."""
    groups = fleet(
        [status(f"edge-{at}", name) for at in range(4) for name in ("edge", "pi-1", "pi-2")], 100_000
    )
    kept, hidden = shown(groups, most=5)
    assert [(one.node, len(one.components), len(one.devices), one.hidden) for one in kept] == [
        ("edge-0", 1, 2, 0),
        ("edge-1", 1, 1, 1),
    ]
    assert hidden == 2


def test_a_part_of_a_name_is_found():
    """A node with all that runs there, a component alone; a state narrows both."""
    groups = fleet(
        [status("edge-1", "edge"), status("edge-1", "pi-1", state="offline"), status("edge-2", "pi-2")],
        100_000,
    )
    assert names(found(groups, "EDGE-1")) == ["edge", "pi-1"]
    assert names(found(groups, "pi-")) == ["pi-1", "pi-2"]
    assert names(found(groups, "edge", "offline")) == ["pi-1"]
    assert found(groups, "nothing") == []


def names(groups: list[NodeGroup]) -> list[str]:
    """Return the names of all components and devices."""
    return [one.status.name for group in groups for one in group.components + group.devices]
