from argparse import ArgumentParser

import pytest
from msgspec import structs

from bus.config import ConfigError
from cli.cloud import run_round
from cli.cloud.watch import trainer_config
from cloud.dataset.store import Label, Row, Store
from cloud.registry.registry import Registry
from cloud.retraining.config import TrainerConfig
from cloud.rollout.options import RolloutOptions
from schemas.messages import Release
from schemas.topics import RELEASE
from tests.cli.conftest import start
from tests.cloud import tiny
from tests.conftest import eventually
from tests.nodes import Observer, photo, photo_id


def harvest(store: Store, first: int, count: int, **fields: object) -> dict[str, str]:
    """Store samples of two colours, and return the colour of each."""
    shown = {photo_id(n): ("red", "blue")[n % 2] for n in range(first, first + count)}
    facts = {"width": 90, "height": 80, "received_at_ms": 1, "lane": "hard"} | fields
    store.upsert([Row(photo_id=p, image=photo(int(p, 16), shown[p]), **facts) for p in shown])
    return shown


@pytest.mark.slow
async def test_a_round_by_hand_teaches_trains_and_releases(address, at, tmp_path):
    """With the real steps: the teacher labels samples, a version is trained on them and announced."""
    store = Store.open(tmp_path / "dataset")
    known = harvest(store, 0, 44)
    store.label([Label(photo_id=p, label=shown, by="ann", at_ms=1) for p, shown in known.items()])
    harvest(store, 100, 8)
    harvest(store, 200, 2, lane="audit")
    places = ("--dataset", store.table.url, "--models", tmp_path / "models", "--cache", tmp_path / "cache")
    places += ("--backbone", tiny.NAME)
    registry, observer = Registry(tmp_path / "models"), Observer(address)
    releases = observer.bus.subscribe(RELEASE)
    async with observer.watching():
        process = await start("cloud", "round", *places, "--release", "edge-1", *at)
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode() + registry.round_log.read_text()
        assert out == b"version 1: no champion to beat\n"
        await eventually(lambda: [e.event for e in observer.events] == ["round.started", "round.finished"])
        release: Release = (await releases.queue.get()).message()
        assert (release.node, release.version) == ("edge-1", 1)
    labelled = list(store.scan(["photo_id", "teacher_by"], where="teacher_label IS NOT NULL"))
    assert 0 < len(labelled) <= 8
    (made,) = registry.cards()
    assert sum(sources.get("teacher", 0) for sources in made.examples.values()) == len(labelled)


def test_a_second_round_is_refused(called, at, tmp_path):
    """While a round is running another one exits with the code for "try again", and publishes no event."""
    Store.open(tmp_path / "dataset")
    words = ("cloud", "round", "--dataset", tmp_path / "dataset", "--models", tmp_path / "models", *at)
    with Registry(tmp_path / "models").round_lock():
        done = called(*words)
    assert done.code == 75
    assert "another training round is running" in done.sentence


def configured(tmp_path, text: str, *words: str) -> TrainerConfig:
    """Return the configuration of `gleaner cloud round` with a file and options."""
    (tmp_path / "trainer.toml").write_text(text)
    parser = ArgumentParser()
    run_round.add_arguments(parser)
    return trainer_config(parser.parse_args(["--config", str(tmp_path / "trainer.toml"), *words]))


def test_a_file_configures_the_release_and_options_its_nodes(tmp_path):
    """`--release` names the nodes and leaves the other fields of the [release] table."""
    text = "backbone = 'xception'\n[release]\ngroups = [['a'], ['b', 'c']]\nbake_time_s = 5\nforce = true\n"
    wanted = RolloutOptions(groups=(("a",), ("b", "c")), bake_time_s=5, force=True)
    loaded = configured(tmp_path, text)
    assert (loaded.release, loaded.backbone) == (wanted, "xception")
    loaded = configured(tmp_path, text, "--release", "n,m", "--backbone", "efficientnet-lite0")
    assert loaded.release == structs.replace(wanted, groups=(("n", "m"),))
    assert loaded.backbone == "efficientnet-lite0"
    assert configured(tmp_path, "", "--release", "n").release == RolloutOptions(groups=(("n",),))
    assert configured(tmp_path, "").release is None


@pytest.mark.parametrize(
    "text", ["release = ['--nodes', 'n']", "[release]\nnodes = 'n'", "[release]\ngroups = []", "round_s = 5"]
)
def test_a_release_table_of_another_form_is_refused(tmp_path, text):
    """Command-line words, which earlier releases took, and misspelt fields are errors."""
    with pytest.raises(ConfigError, match=r"trainer\.toml is invalid"):
        configured(tmp_path, text)
