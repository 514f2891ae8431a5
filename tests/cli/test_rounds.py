import re
from argparse import ArgumentParser

import pytest
from msgspec import structs

from cli.cloud import release, rollout
from cli.cloud.watch import plan
from cloud.dataset.store import Label, Row, Store
from cloud.registry.registry import cards_in
from cloud.retraining.config import TrainerConfig
from cloud.retraining.lock import one_at_a_time
from schemas.messages import Release
from schemas.topics import RELEASE
from tests.cli.conftest import start
from tests.cloud.bundles import card
from tests.conftest import eventually
from tests.nodes import Observer, photo, photo_id


def harvest(store: Store, first: int, count: int, **fields: object) -> dict[str, str]:
    """Store samples of two colours, and return what they show."""
    shown = {photo_id(n): ("red", "blue")[n % 2] for n in range(first, first + count)}
    facts = {"width": 90, "height": 80, "received_at_ms": 1, "lane": "hard"} | fields
    store.upsert([Row(photo_id=p, image=photo(int(p, 16), shown[p]), **facts) for p in shown])
    return shown


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_round_by_hand_teaches_trains_and_releases(address, at, tmp_path):
    """The real programs: the teacher labels samples, a version is trained on them and announced."""
    store = Store.open(tmp_path / "dataset")
    known = harvest(store, 0, 44)
    store.label([Label(photo_id=p, label=shown, by="ann", at_ms=1) for p, shown in known.items()])
    harvest(store, 100, 8)
    harvest(store, 200, 2, lane="audit")
    places = ("--dataset", store.table.url, "--models", tmp_path / "models", "--cache", tmp_path / "cache")
    observer = Observer(address)
    releases = observer.bus.subscribe(RELEASE)
    async with observer.watching():
        process = await start("cloud", "round", *places, "--release", "edge-1", *at)
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode() + (tmp_path / "models" / ".round.log").read_text()
        assert out == b"version 1: no champion to beat\n"
        await eventually(lambda: [e.event for e in observer.events] == ["round.started", "round.finished"])
        release: Release = (await releases.queue.get()).message()
        assert (release.node, release.version) == ("edge-1", 1)
    labelled = list(store.scan(["photo_id", "teacher_by"], where="teacher_label IS NOT NULL"))
    assert 0 < len(labelled) <= 8
    (made,) = cards_in(tmp_path / "models")
    assert sum(sources.get("teacher", 0) for sources in made.examples.values()) == len(labelled)


def test_a_second_round_is_told_to_try_again(called, at, tmp_path):
    """While one is under way another is refused, before anything is announced."""
    Store.open(tmp_path / "dataset")
    words = ("cloud", "round", "--dataset", tmp_path / "dataset", "--models", tmp_path / "models", *at)
    with one_at_a_time(tmp_path / "models"):
        done = called(*words)
    assert done.code == 75
    assert "expected no round under way, got one" in done.sentence


def test_the_options_of_a_round_reach_its_programs(called):
    """Places, networks and the connection, each as its command takes it."""
    staged = ("--stage-s", "5", "--canary-share=0.5", "--watch-s", "9", "--disagreement", "0.3")
    release = ("--nodes", "n", *staged, "--username=u", "--nodes", "m", "--force", "--signing-key", "k")
    config = TrainerConfig(
        dataset="d", models="m", cache="c", backbone="xception", teachers=("a", "b"), release=release
    )
    chosen = plan(config)
    teach, train = (" ".join(step[3:]) for step in chosen.steps)
    assert teach == "cloud teach --dataset d --cache c --backbones a,b"
    assert chosen.release is not None
    words = " ".join(release)
    first, second = (chosen.release(structs.replace(card(n), parent=n - 1 or None))[3:] for n in (1, 2))
    assert " ".join(first) == (
        "cloud release m/1.tar --broker 127.0.0.1:1883 --nodes n,m --username u --signing-key k --force"
    ), "the first version has no stages, and goes to all at once"
    assert " ".join(second) == f"cloud rollout m/2.tar --dataset d --broker 127.0.0.1:1883 {words}"
    assert chosen.tune is not None
    assert " ".join(chosen.tune[3:]) == (
        "cloud policy --tune --dataset d --out m --broker 127.0.0.1:1883 --nodes n,m --username u"
    )
    for program in (first, second):
        assert "expected a tar with" in called(*program).err
    for step in (*chosen.steps, chosen.tune):
        assert "no dataset at d" in called(*step[3:]).err
    assert plan(TrainerConfig()).release is plan(TrainerConfig()).tune is None
    assert len(plan(TrainerConfig(teachers=())).steps) == 1
    assert train == "cloud train --dataset d --cache c --out m --backbone xception"
    assert plan(TrainerConfig(tflite=True)).steps[-1] == (*plan(TrainerConfig()).steps[-1], "--tflite")


def test_a_first_release_gets_each_option_that_a_rollout_has_too():
    """Whatever else may be said of a rollout, what both know reaches both."""
    parsers = ArgumentParser(), ArgumentParser()
    for command, parser in zip((release, rollout), parsers, strict=True):
        command.add_arguments(parser)
    of_release, of_rollout = (set(re.findall(r"--[a-z-]+", parser.format_usage())) for parser in parsers)
    options = [word for name in sorted(of_release & of_rollout - {"--force"}) for word in (name, "x")]
    chosen = plan(TrainerConfig(release=("--shadow-photos", "7", "--force", *options))).release
    assert chosen is not None
    first = chosen(card(1))
    assert set(options) | {"--force"} <= set(first)
    assert not of_rollout - of_release & set(first)
