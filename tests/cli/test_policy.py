"""Rules of `gleaner cloud policy`."""

import msgspec
import pytest

from bus.mqtt.client import Bus, transient_client_id
from cli.cloud.policy import _toml_lines
from cloud.dataset.store import Label, Row, Store
from cloud.registry.registry import Registry
from cloud.rollout.harvest_policy import MIN_AUDITED
from cloud.rollout.policy_update import setting_groups, setting_votes
from schemas.messages import Policy
from schemas.policy_rules import Caps, HarvestRules, Vote
from schemas.topics import POLICY
from tests.cli.conftest import gleaner
from tests.cloud.bundles import card
from tests.conftest import running
from tests.nodes import photo_id

TIMED = "2026-01-0{}T00:00:00+00:00"


@pytest.fixture
async def published(address):
    """Return a bus to publish with, and the queue of all policies on the broker."""
    bus = Bus(address, transient_client_id("observer"))
    policies = bus.subscribe_raw(POLICY.filter)
    async with running(bus):
        yield bus, policies


@pytest.fixture
def say(published):
    """Return a function that publishes the policy of a node, issued on a day of January 2026."""
    bus, _ = published

    async def publish(node: str, rules: HarvestRules, day: int = 1) -> None:
        issued_at_ms = msgspec.structs.replace(card(1), created_at=TIMED.format(day)).created_at_ms
        await bus.publish(POLICY, Policy(node=node, harvest=rules, issued_at_ms=issued_at_ms), node=node)

    return publish


@pytest.fixture
def made(tmp_path):
    """Return a function that writes the card of a version, created on that day of January 2026."""

    def make(version: int, *, auto: bool) -> None:
        created_at = TIMED.format(version)
        made = msgspec.structs.replace(card(version), auto=auto, created_at=created_at)
        Registry(tmp_path / "models").write_card(made)

    return make


@pytest.fixture
def places(tmp_path):
    """Return options for a dataset where version 2 is always right about cats, and for the models."""
    store = Store.open(tmp_path / "dataset")
    facts = {"image": b"x", "width": 1, "height": 1, "received_at_ms": 1, "inclusion": 0.02, "model": "pets"}
    rows = [
        Row(photo_id=photo_id(n), lane="audit", edge_label="cat", confidence=0.8, model_version=2, **facts)
        for n in range(MIN_AUDITED)
    ]
    store.upsert(rows)
    store.label([Label(photo_id=row.photo_id, label="cat", by="ann", at_ms=1) for row in rows])
    return "--dataset", tmp_path / "dataset", "--out", tmp_path / "models"


def newest(policies) -> dict[str, HarvestRules]:
    """Return by node the newest rules published since the last call."""
    got = {}
    while not policies.empty():
        policy = msgspec.json.decode(policies.get_nowait().payload, type=Policy)
        got[policy.node] = policy.harvest
    return got


def test_a_policy_from_a_wrong_clock_is_shown():
    """Its time may be beyond all dates."""
    lines = list(_toml_lines(Policy(node="edge-1", issued_at_ms=2**53), known=True))
    assert lines[0] == "# edge-1: issued at 9999-12-31T23:59:59+00:00"


async def test_rules_are_set_and_shown(at, tmp_path):
    """Rules that were set are shown as a TOML file that can be set again; other nodes have the defaults."""
    rules = tmp_path / "rules.toml"
    rules.write_text('audit_share = 0.1\nauto_by_class."a cat" = 0.95\n[caps]\nper_minute = 7\n')
    done = await gleaner("cloud", "policy", "--nodes", "edge-1,edge-2", "--set", rules, *at)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"edge-1: set from {rules}\nedge-2: set from {rules}\n"
    wanted = HarvestRules(audit_share=0.1, auto_by_class={"a cat": 0.95}, caps=Caps(per_minute=7))
    shown = (await gleaner("cloud", "policy", "--nodes", "edge-2", *at)).out
    assert shown.startswith("# edge-2: issued at 2")
    assert msgspec.toml.decode(shown, type=HarvestRules) == wanted
    shown = (await gleaner("cloud", "policy", "--nodes", "edge-3", "--wait", "0.1", *at)).out
    assert shown.startswith("# edge-3: no policy; the defaults\n")
    assert msgspec.toml.decode(shown, type=HarvestRules) == HarvestRules()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("auto_confidnce = 0.9", "unknown field `auto_confidnce`"),
        ("[caps]\nper_minut = 1", "unknown field `per_minut`"),
        ("auto_confidence = nan", "Expected `float` >= 0.0"),
        ("auto = 1", "Expected `bool`, got `int`"),
        ("auto", "is invalid"),
        (None, "cannot read configuration"),
    ],
)
def test_invalid_rules_are_not_published(called, nowhere, tmp_path, content, words):
    """A misspelt or impossible rule is an error of one sentence, without a broker."""
    rules = tmp_path / "rules.toml"
    if content is not None:
        rules.write_text(content)
    done = called("cloud", "policy", "--set", rules, *nowhere)
    assert done.code == 1
    assert words in done.sentence


def test_only_one_kind_of_change_at_a_time(called, nowhere, tmp_path):
    """Tuning also needs a dataset, a version, and a target that is a share."""
    words = ("cloud", "policy", *nowhere)
    assert called(*words, "--tune", "--auto", "on").code == 2
    assert called(*words, "--auto", "perhaps").code == 2
    assert called(*words, "--tune", "--target", "97").code == 2
    places = ("--dataset", tmp_path / "dataset", "--out", tmp_path / "models")
    assert "no dataset at" in called(*words, "--tune", *places).sentence
    Store.open(tmp_path / "dataset")
    assert "train one with 'gleaner cloud train'" in called(*words, "--tune", *places).sentence


async def test_auto_switches_the_lane_auto_only(at, published, say):
    """The other rules of the node stay unchanged."""
    await say("edge-1", HarvestRules(audit_share=0.1))
    newest(published[1])
    done = await gleaner("cloud", "policy", "--auto", "off", *at)
    assert done.out == "edge-1: lane auto off\n"
    assert newest(published[1]) == {"edge-1": HarvestRules(audit_share=0.1, auto=False)}


async def test_tuning_changes_rules_with_evidence(at, published, say, made, places):
    """It starts from the rules of each node, and each change has its reason."""
    await say("edge-1", HarvestRules(audit_share=0.1, auto_by_class={"dog": 0.99}))
    newest(published[1])
    made(1, auto=True)
    made(2, auto=False)
    done = await gleaner("cloud", "policy", "--tune", "--nodes", "edge-1,edge-2", *places, *at)
    off = "lane auto off: it did not help the training in two rounds running"
    assert [line.partition(" → ")[0] for line in done.out.splitlines()] == [
        f"edge-1: {off}",
        "edge-1: auto_confidence of cat 0.9",
        f"edge-2: {off}",
        "edge-2: auto_confidence of cat 0.9",
    ]
    tuned = {
        "edge-1": HarvestRules(audit_share=0.1, auto=False, auto_by_class={"dog": 0.99, "cat": 0.8}),
        "edge-2": HarvestRules(auto=False, auto_by_class={"cat": 0.8}),
    }
    assert newest(published[1]) == tuned


async def test_tuning_leaves_the_lane_off_if_a_person_switched_it_off(at, published, say, made, places):
    """It is switched on again only if a card had it off when the rules were set."""
    made(1, auto=False)
    made(3, auto=True)
    await say("edge-1", HarvestRules(auto=False), day=2)
    await say("edge-2", HarvestRules(auto=False), day=4)
    newest(published[1])
    done = await gleaner("cloud", "policy", "--tune", "--nodes", "edge-1,edge-2", *places, *at)
    assert done.out == "edge-1: lane auto on: it helps the training again\nedge-2: nothing to change\n"
    assert newest(published[1]) == {"edge-1": HarvestRules()}


async def test_votes_are_set_shown_and_kept(at, published, tmp_path):
    """Votes are of all devices or of one; setting harvest rules does not touch them."""
    done = await gleaner("cloud", "policy", "--vote", "3/4", "--vote", "door=1/1", *at)
    assert done.out == (
        "edge-1: all devices: an answer counts if 3 of the latest 4 agree\n"
        "edge-1: door: no vote, each answer counts\n"
    )
    (tmp_path / "rules.toml").write_text("auto = false")
    assert (await gleaner("cloud", "policy", "--set", tmp_path / "rules.toml", *at)).code == 0
    shown = (await gleaner("cloud", "policy", *at)).out
    assert "# all devices: an answer counts if 3 of the latest 4 agree\n# door: no vote" in shown
    assert msgspec.toml.decode(shown, type=HarvestRules) == HarvestRules(auto=False)


def test_a_vote_for_all_devices_ends_those_of_single_ones():
    """Only the votes that are given with it stay; a vote for one device leaves the others."""
    before = Policy(node="edge-1", votes={"door": Vote(frames=4, agree=3)})
    assert setting_votes({None: Vote()})(before)[0] == Policy(node="edge-1")
    changed, reasons = setting_votes({"yard": Vote(frames=2, agree=2)})(before)
    assert changed.votes == before.votes | {"yard": Vote(frames=2, agree=2)}
    assert reasons == ["yard: an answer counts if 2 of the latest 2 agree"]


@pytest.mark.parametrize("vote", ["3", "4/3", "0/2", "3/65", "a/b", "Door=3/4", "=3/4", "3/4/5", "²/3"])
def test_impossible_votes_are_refused(called, nowhere, vote):
    """The error names the form, and nothing is published."""
    done = called("cloud", "policy", "--vote", vote, *nowhere)
    assert done.code == 2
    assert "argument --vote: " in done.err


async def test_an_invalid_retained_policy_is_not_changed(at, published, tmp_path):
    """The error is one sentence; setting all rules replaces the policy."""
    bus, _ = published
    await bus.publish_bytes(POLICY.name(node="edge-1"), b'{"harvest": 7}', retain=True)
    done = await gleaner("cloud", "policy", "--auto", "off", *at)
    assert done.code == 1
    assert "policy: not a valid Policy: " in done.sentence
    (tmp_path / "rules.toml").write_text("auto = false")
    assert (await gleaner("cloud", "policy", "--set", tmp_path / "rules.toml", *at)).code == 0


async def test_groups_are_set_shown_and_taken_out(at, published, tmp_path):
    """Harvest rules and votes stay, and --set leaves the groups."""
    done = await gleaner("cloud", "policy", "--group", "meter-*=meters", "--group", "door=*", *at)
    assert (done.code, done.out) == (
        0,
        "edge-1: meter-*: group meters\nedge-1: door: each device is a group of its own\n",
    )
    (tmp_path / "rules.toml").write_text("audit_share = 0.5\n")
    await gleaner("cloud", "policy", "--set", tmp_path / "rules.toml", *at)
    shown = (await gleaner("cloud", "policy", *at)).out
    assert "# meter-*: group meters\n# door: each device is a group of its own" in shown


def test_a_group_is_taken_out_and_the_others_stay():
    """What is so already is not a change."""
    before = Policy(node="edge-1", groups={"door": "*", "meter-*": "meters"})
    changed, reasons = setting_groups({"door": None})(before)
    assert (changed.groups, reasons) == ({"meter-*": "meters"}, ["door: no group"])
    assert setting_groups({"door": None, "meter-*": "meters"})(changed) == (changed, [])


@pytest.mark.parametrize("text", ["meters", "Meter=a", "a/b=c", "meter-*=A", "meter-*=a.b", "=a", "meter=a*"])
def test_a_group_that_is_none_is_refused(called, nowhere, text):
    """The error names the form, and nothing is published."""
    done = called("cloud", "policy", "--group", text, *nowhere)
    assert done.code == 2
    assert "argument --group: expected" in done.err
