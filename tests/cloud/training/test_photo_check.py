"""Nothing in a dataset ends a training: what cannot be used is left out, counted, and named."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cloud.dataset.example import Example, TrainingError, count_reasons
from cloud.dataset.schema import Record
from cloud.dataset.store import Row, Store
from cloud.dataset.training_set import BAD_LABEL, DAMAGED_ROW
from cloud.modeling.backbones import COMPACT
from cloud.progress import NoProgress
from cloud.registry.registry import Registry
from cloud.training import photo_check
from cloud.training.photo_check import EQUALS_AUDIT, EQUALS_GOLD, OTHER_CLASS, UNDECODABLE, PhotoChecker
from cloud.training.photos import Photos, usable_photos
from cloud.training.pipeline import TrainingOptions, run_training, tag_dataset
from schemas.errors import PermanentError
from tests.cloud import tiny

# Importing TensorFlow 2.21 with a current NumPy and protobuf warns about their own deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")


def row(example: Example, **fields: Any) -> Row:
    said = {"human_label": example.label, "human_by": "ann", "human_at_ms": 1}
    facts = {"width": 80, "height": 60, "received_at_ms": 1, "split": "train", "origin": "import"}
    named = {"photo_id": example.content_id, "image": example.image}
    return Row(**(named | facts | said | fields))


def at_rest(store: Store, example: Example, **fields: object) -> None:
    """Change a stored row as nothing of this version would: by an earlier version, or by a flipped bit."""

    def change(record: Record) -> Record:
        return record | fields

    assert store.change([example.content_id], change)


def patchwork(seed: int) -> bytes:
    """Return a picture with large patches, as photos have; noise alone would not survive compression."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(patches).resize((160, 120), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()


def smaller(image: bytes) -> bytes:
    """Return a picture at half its size, compressed again."""
    with Image.open(io.BytesIO(image)) as picture:
        out = io.BytesIO()
        picture.resize((picture.width // 2, picture.height // 2)).save(out, "JPEG", quality=60)
    return out.getvalue()


def zeros_behind(image: bytes) -> bytes:
    """Return a JPEG without an end marker and with zeros behind: decoders disagree about it."""
    return image[:-2] + bytes(500)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TrainingOptions]:
    folder = tmp_path_factory.mktemp("poison")

    def make(store: Store, **fields: Any) -> TrainingOptions:
        models = str(Path(store.table.url).with_name("models"))
        places = {"dataset": store.table.url, "models": models, "cache": str(folder)}
        return TrainingOptions(backbone=tiny.NAME, **places, **fields)

    return make


def test_poison_costs_itself(make_example: Any, tmp_path: Path, options: Any) -> None:
    """Labels at rest with line breaks and controls, undecodable pictures, twins of gold and damaged rows."""
    store = Store.open(tmp_path / "dataset")
    good = [make_example(label, seed) for label in ("dawn", "dusk") for seed in range(6)]
    gold = [make_example(label, seed) for label in ("dawn", "dusk") for seed in range(20, 22)]
    bad = [make_example("dawn", seed) for seed in range(40, 48)]
    (tidied, control, empty, garbage, zeros, no_image, lost, of_nothing) = bad
    gold[0] = replace(gold[0], image=patchwork(1))
    twin = replace(gold[0], image=smaller(gold[0].image))
    unlabelled = {"human_label": None, "human_by": None, "human_at_ms": None}
    copy = row(gold[1], photo_id="ab" * 16, origin="sample", **unlabelled)
    store.upsert([row(one) for one in (*good, *bad, twin)] + [row(one, split="gold") for one in gold])
    store.upsert([replace(copy, lane="auto", edge_label="dawn", confidence=1.0)])
    at_rest(store, tidied, human_label="dawn\n")
    at_rest(store, control, human_label="da\x1bwn", source="dawn/control.jpg")
    at_rest(store, empty, human_label="")
    at_rest(store, garbage, image=b"\xff\xd8\xff no picture", source="dawn/garbage.jpg")
    at_rest(store, zeros, image=zeros_behind(zeros.image)[:400])
    at_rest(store, no_image, image=None)
    at_rest(store, lost, image=b"")
    at_rest(store, of_nothing, human_label="neither\r\n")
    run = run_training(options(store))
    assert run.trained is not None
    assert run.trained.card.classes == ["dawn", "dusk"]
    assert run.trained.card.examples == {"dawn": {"human": 7}, "dusk": {"human": 6}}
    reasons = {BAD_LABEL: 2, UNDECODABLE: 2, DAMAGED_ROW: 2, EQUALS_GOLD: 2}
    assert count_reasons(run.left_out) == run.trained.card.left_out == reasons
    texts = [str(one) for one in run.left_out]
    assert any(text.startswith(f"dawn/control.jpg {control.content_id}: ") for text in texts)
    assert any(text.startswith(f"dawn/garbage.jpg {garbage.content_id}: {UNDECODABLE}: ") for text in texts)
    assert all(text.isprintable() for text in texts)


def test_another_label_by_a_person_is_another_picture(make_example: Any, tmp_path: Path) -> None:
    """A near-duplicate of a gold photo stays if a person gave it another label; a model's label counts less.

    Two digits of one meter have almost the same thumbnails. The same bytes are left out in any case.
    """
    gold = replace(make_example("dawn", 1), image=patchwork(1))
    near = [
        replace(gold, image=smaller(gold.image), label=label, source=source)
        for label, source in (("dawn", "human"), ("dusk", "human"), ("dusk", "teacher"))
    ]
    copy = replace(gold, label="dusk")
    checker = PhotoChecker(COMPACT, tmp_path)
    checker.decodable([gold, *near, copy], NoProgress())
    usable, left_out = checker.unlike([*near, copy], [gold])
    assert usable == [near[1]]
    assert len(left_out) == 3


def test_a_photo_that_memory_does_not_suffice_for_costs_itself(
    make_example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch without enough memory is halved; a photo that fails alone is left out, and tried later."""
    photos = [make_example("dawn", seed) for seed in range(4)]
    real, short = photo_check.preprocess, {photos[2].image}

    def preprocess(backbone: Any, encoded: Any) -> Any:
        images = encoded.numpy().tolist()
        if len(images) > 2 or short.intersection(images):
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating a tensor")
        return real(backbone, encoded)

    monkeypatch.setattr(photo_check, "preprocess", preprocess)
    usable, left_out = PhotoChecker(COMPACT, tmp_path).decodable(photos, NoProgress())
    assert usable == [*photos[:2], photos[3]]
    assert left_out[0].detail == "ResourceExhaustedError: OOM when allocating a tensor"
    short.clear()
    assert PhotoChecker(COMPACT, tmp_path).decodable(photos, NoProgress()) == (photos, [])


def test_given_classes_leave_out_all_others(make_example: Any, tmp_path: Path, options: Any) -> None:
    """With --classes, photos of other classes are left out of training and gold, with a count."""
    store = Store.open(tmp_path / "dataset")
    known = [make_example(label, seed) for label in ("dawn", "dusk") for seed in range(2)]
    other = [replace(make_example("dawn", seed), label="fog") for seed in range(10, 15)]
    other_gold = replace(make_example("dawn", 30), label="mist")
    store.upsert([*map(row, known), *map(row, other), row(other_gold, split="gold")])
    run = run_training(options(store, classes=("dusk", "dawn")))
    assert run.trained is not None
    assert run.trained.card.classes == ["dusk", "dawn"]
    assert count_reasons(run.left_out) == {OTHER_CLASS: 6}


def test_a_class_that_lost_its_labels_is_not_dropped_in_silence(
    make_example: Any, tmp_path: Path, options: Any
) -> None:
    """A version without a class of the champion is not promoted while photos have that label.

    Gold photos of a class that nothing is trained on end no training; they are left out, so that no figure
    would show the loss.
    """
    store = Store.open(tmp_path / "dataset")
    few = [make_example("dawn", 1), make_example("dusk", 1), replace(make_example("dawn", 10), label="fog")]
    gold = [make_example("dusk", 30), replace(make_example("dawn", 30), label="mist")]
    store.upsert([*map(row, few), *(row(one, split="gold") for one in gold)])
    run = run_training(options(store, tflite=False))
    assert run.trained is not None
    assert run.trained.card.classes == ["dawn", "dusk", "fog"]
    assert [one.detail for one in run.left_out] == ["mist"], "gold of a class that nothing is trained on"
    store.upsert([row(make_example(label, seed)) for label in ("dawn", "dusk") for seed in (2, 3)])
    run = run_training(options(store, tflite=False))
    assert run.waiting == {"fog": 1, "mist": 0}
    assert run.trained is not None
    verdict = run.trained.card.verdict
    assert verdict is not None
    assert verdict.decision == "keep"
    assert verdict.reasons[-1].startswith("class fog is lost: photos have this label")


class _NothingStarts(NoProgress):
    """Fails at the first step, which loads TensorFlow."""

    def start(self, step: str, total: int) -> None:
        pytest.fail(f"{step} began, {total}")


def test_one_class_is_an_error_that_says_what_to_do(make_example: Any, tmp_path: Path, options: Any) -> None:
    """A training needs two classes; the error names the command, and comes before TensorFlow is loaded."""
    store = Store.open(tmp_path / "dataset")
    store.upsert([row(make_example("dawn", seed)) for seed in range(4)])
    with pytest.raises(TrainingError, match=r"cannot train with one class, 'dawn'; .*; import"):
        run_training(options(store), _NothingStarts())
    assert Registry(options(store).models).versions() == []


def test_a_number_that_another_models_folder_tagged_is_not_used(
    make_example: Any, tmp_path: Path, options: Any
) -> None:
    """The tags of the dataset are looked at before the training: the next free number, or a refusal."""
    store = Store.open(tmp_path / "dataset")
    store.upsert([row(make_example(label, 1)) for label in ("dawn", "dusk")])
    tagged = store.tag("model-1")
    store.upsert([row(make_example(label, 2)) for label in ("dawn", "dusk")])
    with pytest.raises(
        PermanentError, match=f"version 1: .* tag 'model-1' for its version {tagged}, .* another number"
    ):
        run_training(options(store, version=1), _NothingStarts())
    run = run_training(options(store, tflite=False))
    assert run.trained is not None
    assert (run.trained.card.version, run.warnings) == (2, [])
    assert store.tags() == {"model-1": tagged, "model-2": run.trained.card.dataset_version}


def test_a_version_counts_without_its_tag(make_example: Any, tmp_path: Path) -> None:
    """What fails after the version is complete is a warning, for example if its rows were purged."""
    store = Store.open(tmp_path / "dataset")
    store.upsert([row(make_example("dawn", 1))])
    (warning,) = tag_dataset(store, 3, store.version + 7)
    assert warning.startswith(
        f"version 3 is complete, but version {store.version + 7} of the dataset has no tag: "
    )
    assert tag_dataset(store, 3, store.version) == []


def test_near_duplicates_have_one_group(make_example: Any, tmp_path: Path) -> None:
    """Equal pictures and near-duplicates have one number; what cannot be decoded is alone."""
    big = replace(make_example("dawn", 1), image=patchwork(1))
    photos = [big, replace(big, image=smaller(big.image)), replace(big, image=patchwork(2)), big]
    photos.append(replace(big, image=b"no picture"))
    groups = PhotoChecker(COMPACT, tmp_path).groups(photos, NoProgress())
    assert groups[0] == groups[1] == groups[3]
    assert len(set(groups)) == 3


def test_near_duplicates_of_the_audit_slice_are_not_trained_on(make_example: Any, tmp_path: Path) -> None:
    """As those of gold: a version would be praised for its memory. The audited photos are not listed."""
    checker = PhotoChecker(COMPACT, tmp_path)
    pictures = [replace(make_example("dawn", 1), image=patchwork(n), label=label)
                for n, label in enumerate(["dawn"] * 5 + ["dusk"] * 5)]  # fmt: skip
    photos = [replace(one, photo_id=one.content_id) for one in pictures]
    again = replace(photos[0], image=smaller(photos[0].image), photo_id="ab" * 16)
    read = Photos.none(None)._replace(labelled=[*photos, again], audit=[photos[0]])
    usable = usable_photos(read, checker, None, NoProgress())
    assert usable.labelled == photos[1:]
    assert usable.audit == photos[:1]
    assert [(one.photo_id, one.reason) for one in usable.left_out] == [("ab" * 16, EQUALS_AUDIT)]


def test_a_photo_like_one_that_the_champion_knows_judges_no_version(
    make_example: Any, tmp_path: Path
) -> None:
    """It would favour the champion, and keep the photos like it out of the training: it is trained on."""
    checker = PhotoChecker(COMPACT, tmp_path)
    pictures = [replace(make_example("dawn", 1), image=patchwork(n), label=label)
                for n, label in enumerate(["dawn"] * 5 + ["dusk"] * 5)]  # fmt: skip
    photos = [replace(one, photo_id=one.content_id) for one in pictures]
    like_known = replace(photos[0], image=smaller(photos[0].image), photo_id="ab" * 16)
    audit = [like_known, photos[4]]
    read = Photos.none(None)._replace(
        labelled=[*photos, like_known], audit=audit, unseen=frozenset(one.photo_id for one in audit)
    )
    usable = usable_photos(read, checker, None, NoProgress())
    assert usable.audit == [photos[4]]
    assert usable.unseen == {photos[4].photo_id}
    assert usable.labelled == [*photos[:4], *photos[5:], like_known]
    assert usable.left_out == []
