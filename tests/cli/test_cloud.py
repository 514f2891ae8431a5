import asyncio
import json

import pytest
from PIL import Image

from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.presence import Presence
from cloud.collector import collector
from cloud.collector.config import CollectorConfig
from cloud.dataset.dead_letters import Bounds, DeadLetter, DeadLetterTable
from cloud.dataset.example import TrainingError
from cloud.dataset.store import Label, Row, Store
from cloud.evaluation.paired_comparison import Comparison
from cloud.evaluation.promotion_gate import Verdict
from cloud.export.saved_model import ExportError
from cloud.modeling.backbones import BackboneUnavailableError
from cloud.registry.registry import Registry
from cloud.training import train
from schemas.messages import Event, Feedback, ServedModel
from schemas.topics import EVENT, FEEDBACK, RELEASE
from tests.cli.conftest import gleaner
from tests.cloud.bundles import bundle, card
from tests.conftest import DEADLINE_S, jpeg, running
from tests.device.conftest import NODE

HARVESTED = ("0" * 32, "1" * 32)


@pytest.fixture
def photos(tmp_path):
    """A folder of two classes and with a file that is not a photo."""
    for number, label in enumerate(("cat", "cat", "dog")):
        path = tmp_path / "photos" / label / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(number))
    (tmp_path / "photos" / "dog" / "broken.jpg").write_bytes(b"no photo")
    return tmp_path / "photos"


@pytest.fixture
def dataset(tmp_path):
    """A dataset of two harvested photos, one of them less certain."""
    store = Store.open(tmp_path / "dataset")
    rows = [
        Row(
            photo_id=photo_id,
            image=jpeg(number),
            width=160,
            height=120,
            received_at_ms=1,
            node=NODE,
            device="pi-1",
            lane="hard",
            edge_label="cat",
            confidence=0.7 - number / 10,
        )
        for number, photo_id in enumerate(HARVESTED)
    ]
    store.upsert(rows)
    return tmp_path / "dataset"


def test_import_counts_photos_and_names_skipped_files(called, photos, tmp_path):
    """Photos are stored once; other files are skipped and named."""
    words = ("cloud", "import", photos, "--dataset", tmp_path / "dataset")
    done = called(*words)
    assert done.code == 0
    assert done.out.startswith("3 photos stored, 0 were there, 1 skipped; dataset version ")
    assert "skipped: file dog/broken.jpg" in done.err
    assert called(*words).out.startswith("0 photos stored, 3 were there, 1 skipped")
    assert Store.open(tmp_path / "dataset").count("human_label = 'cat'") == 2


def test_importing_a_folder_without_classes_is_an_error(called, tmp_path):
    """A folder without class folders is an error."""
    (tmp_path / "empty").mkdir()
    done = called("cloud", "import", tmp_path / "empty", "--dataset", tmp_path / "dataset")
    assert done.code == 1
    assert "no class folder with photos" in done.err


@pytest.mark.parametrize("step", ["train", "review"])
def test_reading_a_missing_dataset_creates_none(called, tmp_path, step):
    """A misspelt path is an error, and creates no empty dataset."""
    done = called("cloud", step, "--dataset", tmp_path / "datset")
    assert done.code == 1
    assert "no dataset at" in done.sentence
    assert not (tmp_path / "datset").exists()


def test_a_dataset_with_an_unknown_url_scheme_is_an_error(called, photos):
    """A URL with an unknown scheme is an error of one sentence."""
    done = called("cloud", "import", photos, "--dataset", "nowhere://x/y")
    assert done.code == 1
    assert "not a folder or URL for a table" in done.sentence


def test_invalid_options_of_a_training_are_one_sentence(called, photos, monkeypatch, tmp_path):
    """Options that allow no training are one sentence; a wrong backbone does not load TensorFlow."""
    called("cloud", "import", photos, "--dataset", tmp_path / "dataset")
    words = ("cloud", "train", "--dataset", tmp_path / "dataset", "--out", tmp_path / "models")
    done = called(*words, "--classes", "cat")
    assert done.code == 1
    assert done.err.splitlines()[-1] == (
        "gleaner cloud train: classes: expected at least two distinct names, got ['cat']"
        "; 'gleaner cloud list --classes' lists those of the dataset"
    )
    monkeypatch.setattr("cloud.training.pipeline.load_tensorflow", lambda: pytest.fail("it takes seconds"))
    for option in ("--backbone", "--also"):
        assert called(*words, option, "resnet").err.splitlines()[-1] == (
            "gleaner cloud train: backbone: "
            "expected one of xception, xception-small, compact, efficientnet-lite0, efficientnet-lite0-grid, "
            "efficientnet-lite1, efficientnet-lite2, got 'resnet'"
        )
    assert "no version 99" in called(*words, "--dataset-version", "99").err


def label_two_classes(dataset):
    """Label the two photos as of two classes, which a training needs."""
    store = Store.open(dataset)
    ids = sorted(str(row["photo_id"]) for row in store.scan(["photo_id"]))
    store.label(
        [
            Label(photo_id=photo_id, label=label, by="ann", at_ms=1)
            for photo_id, label in zip(ids, ("cat", "dog"), strict=True)
        ]
    )


@pytest.mark.parametrize("error", [TrainingError("x"), ExportError("x"), BackboneUnavailableError("x")])
def test_each_error_of_a_training_is_one_sentence(called, dataset, monkeypatch, tmp_path, error):
    """Each error of the training is printed as one sentence."""
    label_two_classes(dataset)

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(train, "train", refuse)
    done = called("cloud", "train", "--dataset", dataset, "--out", tmp_path / "models")
    assert done.code == 1
    assert done.err.splitlines()[-1] == "gleaner cloud train: x"
    assert "Traceback" not in done.err


def test_a_version_that_exists_is_not_trained_again(called, dataset, tmp_path):
    """A number of a version is used once."""
    (tmp_path / "models" / "3").mkdir(parents=True)
    done = called("cloud", "train", "--dataset", dataset, "--out", tmp_path / "models", "--version", "3")
    assert done.code == 1
    assert "version 3 already exists" in done.err


@pytest.mark.parametrize("words", [("train",), ("adopt", "model.keras", "--classes", "cat,dog")])
def test_nothing_is_trained_beside_a_round(called, dataset, tmp_path, monkeypatch, words):
    """By hand as by a trainer: both would write the same version, and share the memory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.keras").touch()
    with Registry(tmp_path / "models").round_lock():
        done = called("cloud", *words, "--dataset", dataset, "--out", tmp_path / "models")
    assert done.sentence == (
        f"gleaner cloud {words[0]}: another training round is running in {tmp_path / 'models'}; "
        "try again when it has ended"
    )
    done = called("cloud", *words, "--dataset", tmp_path / "none", "--out", tmp_path / "new")
    assert "no dataset at" in done.sentence
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    done = called("cloud", *words, "--dataset", dataset, "--out", tmp_path / "file")
    assert "is a file; choose another folder" in done.sentence


def test_review_lists_the_least_certain_first(called, dataset, tmp_path):
    """A line for each photo without a human label: time, camera and reason; its image with --save."""
    done = called("cloud", "review", "--dataset", dataset, "--save", tmp_path / "look")
    why = ["the", "model", "is", "uncertain"]
    came = ["1970-01-01", "00:00Z", f"{NODE}/pi-1"]
    assert [line.split() for line in done.out.splitlines()] == [
        ["photo", "arrived", "from", "conf.", "label", "lane", "why"],
        [HARVESTED[1], *came, "0.60", "cat", "hard", *why],
        [HARVESTED[0], *came, "0.70", "cat", "hard", *why],
    ]
    with Image.open(tmp_path / "look" / f"{HARVESTED[1]}.jpeg") as picture:
        assert picture.size == (160, 120)
    assert len(called("cloud", "review", "--dataset", dataset, "--limit", "1").out.splitlines()) == 2


def test_an_empty_list_writes_no_contact_sheet(called, tmp_path):
    """A sheet without a photo would be an empty page; the command reports that there is none."""
    Store.open(tmp_path / "empty")
    done = called("cloud", "review", "--dataset", tmp_path / "empty", "--sheet", tmp_path / "sheet.html")
    assert (done.code, done.out) == (0, "")
    assert done.sentence == f"{tmp_path}/sheet.html is not written: there is no photo to show"
    assert not (tmp_path / "sheet.html").exists()


def test_review_as_json(called, dataset):
    """One JSON object per line, without the image."""
    line = called("cloud", "review", "--dataset", dataset, "--json").out.splitlines()[0]
    fields = json.loads(line)
    assert (fields["photo_id"], fields["node"], fields["edge_label"]) == (HARVESTED[1], NODE, "cat")
    assert "image" not in fields


def test_review_lists_dead_letters(called, dataset, tmp_path):
    """Dead letters are listed newest first with id, time, node and reason, and saved as bytes."""
    words = ("cloud", "review", "--dataset", dataset, "--dead-letters")
    assert "no dataset at" in called(*words).sentence
    messages = [
        DeadLetter(photo_id=str(n) * 32, node=NODE, reason=f"reason {n}", received_at_ms=n, payload=b"%d" % n)
        for n in range(3)
    ]
    DeadLetterTable.open(dataset).put(messages, Bounds(100, 1000))
    done = called(*words, "--limit", "2", "--save", tmp_path / "look")
    assert done.out.splitlines() == [
        f"{'photo':<32}  arrived           node         reason",
        f"{'2' * 32}  1970-01-01 00:00Z edge-1       reason 2",
        f"{'1' * 32}  1970-01-01 00:00Z edge-1       reason 1",
    ]
    assert (tmp_path / "look" / f"{'2' * 32}.bin").read_bytes() == b"2"
    first = json.loads(called(*words, "--json").out.splitlines()[0])
    assert first == {
        "photo_id": "2" * 32,
        "node": NODE,
        "received_at_ms": 2,
        "size_bytes": 1,
        "reason": "reason 2",
    }


async def test_a_label_is_published_as_feedback(address, at, dataset):
    """The label is published to the node and device of the photo, with the name of the person.

    Without a collector it may not be recorded: the command reports that, for the user to repeat it.
    """
    listener = Bus(address, transient_client_id("listener"))
    labels = listener.subscribe(FEEDBACK)
    async with running(listener), asyncio.timeout(DEADLINE_S):
        words = ("--label", HARVESTED[0], "dog", "--by", "ann", "--wait", "0.5")
        done = await gleaner("cloud", "review", "--dataset", dataset, *words, *at)
        assert (done.code, done.out) == (75, "")
        assert f"{HARVESTED[0]}: dog: no collector answered within 0.5 s" in done.sentence
        feedback: Feedback = (await labels.queue.get()).message()
    assert (feedback.photo_id, feedback.node, feedback.device) == (HARVESTED[0], NODE, "pi-1")
    assert (feedback.label, feedback.by) == ("dog", "ann")


async def test_a_label_waits_for_the_word_of_a_collector(address, at, dataset):
    """`recorded` once it is in the dataset; an earlier time than that of the stored label is `superseded`."""
    config = CollectorConfig(broker=address, dataset=str(dataset))
    words = ("cloud", "review", "--dataset", dataset, "--by", "ann", *at, "--label", HARVESTED[0])
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(collector.run(config))
        done = await gleaner(*words, " dog\n")
        assert (done.code, done.out) == (0, f"{HARVESTED[0]}: dog: recorded\n")
        running.cancel()
    assert Store.open(dataset).count("human_label = 'dog' AND human_by = 'ann'") == 1


def test_imported_photos_can_be_labelled_too(called, dataset, photos, nowhere):
    """Such a photo has no topic, so its label goes into the dataset, without a broker."""
    called("cloud", "import", photos, "--dataset", dataset)
    (found,) = Store.open(dataset).scan(["photo_id"], where="source = 'dog/2.jpg'")
    words = ("--label", found["photo_id"], "cow", *nowhere)
    done = called("cloud", "review", "--dataset", dataset, *words)
    assert (done.code, done.out) == (0, f"{found['photo_id']}: cow: recorded\n")
    assert Store.open(dataset).count("human_label = 'cow' AND source = 'dog/2.jpg'") == 1


def test_what_cannot_be_labelled_is_an_error(called, dataset):
    """An unknown photo, an invalid id and an invalid label are errors."""
    for photo_id, label, words in (
        ("2" * 32, "dog", "not in the dataset"),
        ("' OR true --", "dog", "photo_id of label"),
        (HARVESTED[0], "", "label of label"),
        (HARVESTED[0], "x" * 200, "has 200 characters"),
        (HARVESTED[0], "do\x1bg", "U+001B inside"),
    ):
        done = called("cloud", "review", "--dataset", dataset, "--label", photo_id, label)
        assert done.code == 1
        assert words in done.sentence


@pytest.mark.parametrize(
    ("option", "value"), [("--nodes", "edge-1,Edge 2"), ("--model", "a b"), ("--wait", "0")]
)
def test_a_release_with_an_invalid_option_is_not_published(called, tmp_path, option, value):
    """An invalid node or model name is a usage error."""
    assert called("cloud", "release", bundle(tmp_path, 2), option, value).code == 2


def test_a_release_that_breaks_the_contract_is_not_published(called, nowhere, tmp_path):
    """A release that breaks the contract is an error before it is published."""
    done = called("cloud", "release", bundle(tmp_path, 2), "--url", "x" * 3000, *nowhere)
    assert done.code == 1
    assert "of length <= 2048" in done.sentence


@pytest.mark.parametrize("decision", ["keep", "inconclusive"])
def test_what_the_gate_did_not_promote_is_not_released(called, tmp_path, decision):
    """The error has the verdict and its reasons, and names --force, which releases the version."""
    same = Comparison(400, 0.9, 0.9, 0, 0, 1.0, 0.0, 0.0)
    verdict = Verdict(decision, 1, ["recall of cat -10.0 points"], same, None, None)
    words = ("cloud", "release", bundle(tmp_path, 2, verdict), "--signing-key", tmp_path / "none.key")
    done = called(*words)
    assert done.code == 1
    assert f"{decision}: recall of cat -10.0 points; use --force to release it anyway" in done.sentence
    assert "none.key" in called(*words, "--force").sentence


def test_releasing_a_missing_bundle_is_one_sentence(called, tmp_path):
    """The bundle is read before anything is published."""
    done = called("cloud", "release", tmp_path / "none.tar")
    assert done.sentence.startswith("gleaner cloud release: cannot read bundle ")
    assert done.code == 1
    assert done.sentence.endswith("none.tar: No such file or directory")


async def released(address, at, tmp_path, answer, *words):
    """Release a bundle to a node that runs `answer`, and return the outcome of the command."""
    node = Bus(address, transient_client_id("node"), presence=Presence(NODE, "edge"))
    releases = node.subscribe(RELEASE, node=NODE)

    async def follow() -> None:
        await answer(node, (await releases.queue.get()).message())

    async with running(node):
        following = asyncio.create_task(follow())
        done = await gleaner(
            "cloud", "release", bundle(tmp_path, 2), "--wait", f"{DEADLINE_S:g}", *words, *at
        )
        await following
    return done


async def test_release_waits_until_the_node_serves_it(address, at, tmp_path):
    """The command prints when the release is published and when the node serves it."""

    async def serve(node, release):
        await node.report(model=ServedModel(name=release.model, version=release.version, state="available"))

    done = await released(address, at, tmp_path, serve)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == ["version 2 released to edge-1", "edge-1 serves version 2"]


async def test_release_prints_why_a_node_cannot_serve_it(address, at, tmp_path):
    """The node's reason is the error of the command."""

    async def fail(node, release):
        event = Event(
            node=NODE, name="edge", event="model.failed", at_ms=1, reason="no memory", facts={"version": 2}
        )
        await node.publish(EVENT, event, node=NODE, name="edge")

    done = await released(address, at, tmp_path, fail)
    assert done.code == 1
    assert done.sentence == "gleaner cloud release: node edge-1 cannot serve version 2: no memory"


async def test_release_waits_no_longer_than_its_deadline(address, at, tmp_path):
    """A node that does not answer in time is an error with the exit code for "try again"."""

    async def nothing(node, release):
        return None

    done = await released(address, at, tmp_path, nothing, "--wait", "0.5")
    assert done.code == 75
    assert "edge-1 did not report version 2 within 0.5 s" in done.sentence


def test_evaluating_a_missing_version_is_one_sentence(called, dataset, tmp_path):
    """The error names the versions that exist."""
    Registry(tmp_path / "models").write_card(card(3))
    done = called("cloud", "evaluate", "7", "--dataset", dataset, "--out", tmp_path / "models")
    assert done.code == 1
    assert "no version 7 in" in done.sentence
    assert done.sentence.endswith("choose one of 3")
    done = called("cloud", "evaluate", "--dataset", dataset, "--out", tmp_path / "nothing")
    assert "nothing; train one with 'gleaner cloud train'" in done.sentence


def test_the_fresh_audit_slice_is_not_trained_on(called, dataset, monkeypatch, tmp_path):
    """Audit photos with a human label, received since the champion was trained, are held back."""
    champion = card(1)
    Registry(tmp_path / "models").write_card(champion)
    said = {"human_by": "ann", "human_at_ms": 9, "width": 160, "height": 120, "lane": "audit"}
    received = [champion.created_at_ms] * 3 + [champion.created_at_ms + 1] * 2
    rows = [
        Row(
            photo_id=str(number) * 32, image=jpeg(number), received_at_ms=received_at_ms, inclusion=0.02,
            human_label=label, **said,
        )
        for number, (received_at_ms, label) in enumerate(zip(received, ["cat"] * 4 + ["dog"], strict=True), 4)
    ]  # fmt: skip
    Store.open(dataset).upsert(rows)
    given = []

    def refuse(*photos: object, **_: object) -> None:
        given.extend([example.photo_id[0] for example in some] for some in photos)
        raise TrainingError("x")

    monkeypatch.setattr(train, "train", refuse)
    called("cloud", "train", "--dataset", dataset, "--out", tmp_path / "models")
    assert given == [["4", "5", "6", "8"], [], ["7"]]  # 8 is the only photo of its class


def test_tflite_is_passed_to_the_training(called, dataset, monkeypatch, tmp_path):
    """`--tflite` reaches the training; it is the default."""
    label_two_classes(dataset)
    given = []

    def refuse(*_: object, tflite: bool, **__: object) -> None:
        given.append(tflite)
        raise TrainingError("x")

    monkeypatch.setattr(train, "train", refuse)
    for options in ((), ("--tflite",), ("--no-tflite",)):
        called("cloud", "train", "--dataset", dataset, "--out", tmp_path / "models", *options)
    assert given == [True, True, False]


@pytest.mark.parametrize("step", ["teach", "doubts", "train", "evaluate"])
def test_a_negative_seed_is_a_usage_error(called, step):
    """A negative seed is a usage error."""
    done = called("cloud", step, "--seed", "-1")
    assert done.code == 2
    assert "argument --seed: expected a number of at least 0, got '-1'" in done.err
