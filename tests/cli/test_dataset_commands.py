"""The commands on the photos of the dataset, as a person types them."""

import json
import re

import pyarrow.parquet as pq
import pytest

from cli.cloud.dataset import forget
from cloud.dataset.store import Store
from tests.conftest import jpeg


@pytest.fixture
def photos(tmp_path):
    """Two classes, a loose photo, a class in other case and a text."""
    names = [f"cat/{n}.jpg" for n in range(10)] + [f"dog/{n}.jpg" for n in range(10)]
    for number, name in enumerate([*names, "Cat/x.jpg", "loose.jpg"]):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(number))
    (tmp_path / "photos" / "cat" / "notes.txt").write_text("hello")
    return tmp_path / "photos"


@pytest.fixture
def command(called, tmp_path):
    """Run `gleaner cloud NAME … --dataset …`."""

    def run(name, *words):
        return called("cloud", name, *words, "--dataset", tmp_path / "dataset")

    return run


def test_an_import_prints_classes_and_what_it_passes_over(command, photos):
    """Counts by class, gold among them, nearly equal names, and every other file with path and reason."""
    done = command("import", photos, "--hold-out", "20%")
    assert done.code == 0
    stored, *classes = done.out.splitlines()[:4]
    assert stored == "21 photos stored, 0 were there, 1 skipped; dataset version 2"
    # Some of these drawings are near-duplicates, which stay on one side: two of ten at most.
    assert classes[0] == "  Cat: 1 photo"
    for line, label in zip(classes[1:], ("cat", "dog"), strict=True):
        assert re.fullmatch(rf"  {label}: 10 photos(, [12] of them gold)?", line)
    assert "of them gold" in done.out
    assert "classes 'Cat' and 'cat' have nearly the same name: 'gleaner cloud merge-class" in done.out
    assert "skipped: loose.jpg: in no class folder" in done.err
    assert "ignored: cat/notes.txt: not a picture" in done.err
    (photos / "cat" / "1.jpg").rename(photos / "dog" / "moved.jpg")
    again = command("import", photos)
    assert "1 label changed" in again.out.splitlines()


def test_many_names_that_are_ignored_for_one_reason_are_counted(command, photos):
    """The first ten are named, so that the files that were skipped stay visible."""
    for number in range(300):
        (photos / "cat" / f"empty-{number:03}").mkdir()
    done = command("import", photos)
    assert sum("empty-" in line for line in done.err.splitlines()) == 10
    assert "ignored: 290 more: a folder inside a class folder" in done.err
    assert "skipped: loose.jpg: in no class folder" in done.err


def test_a_dry_run_creates_no_dataset(command, photos, tmp_path):
    """It prints the same counts; a folder that is not there is named in one short sentence."""
    done = command("import", photos, "--dry-run")
    assert done.out.startswith("dry run: 21 photos stored, 0 were there, 1 skipped\n")
    assert not (tmp_path / "dataset").exists()
    missing = command("import", tmp_path / "nowhere")
    assert missing.sentence.endswith("nowhere: no such folder or file")
    assert not (tmp_path / "dataset").exists()
    assert command("import", photos, "--hold-out", "95%").code == 2


def test_without_gold_photos_the_import_says_how_to_get_some(command, photos):
    """The hint names the option."""
    assert "no gold photos: 'gleaner cloud import SOURCE --hold-out 20%'" in command("import", photos).out


def test_photos_are_listed_and_corrected_by_file_name(command, photos):
    """Filters, JSON, a new label, a merged class, and the log of all that."""
    command("import", photos)
    listed = command("list", "--class", "cat", "--json")
    rows = [json.loads(line) for line in listed.out.splitlines()]
    assert {row["source"] for row in rows} == {f"cat/{n}.jpg" for n in range(10)}
    assert "image" not in rows[0]
    assert command("label", "cat/1.jpg", "dog").code == 1
    assert command("relabel", "cat/1.jpg", " dog\n", "--by", "ann").out.endswith(": dog (was cat)\n")
    assert command("merge-class", "Cat", "cat").out == "Cat -> cat: 1 photos\n"
    assert command("rename-class", "cat", "tabby").out == "cat -> tabby: 10 photos\n"
    assert command("list", "--classes").out == "dog: 11\ntabby: 10\n"
    changes = command("list", "--changes").out.splitlines()
    assert [line.split(": ")[1] for line in changes] == ["rename-class", "merge-class", "relabel"]
    assert "ann: relabel: cat -> dog: 1 photos" in changes[2]


def test_forgetting_asks_and_is_final(command, photos, tmp_path):
    """Nothing selected is an error, no terminal needs --yes, and an import does not bring a photo back."""
    command("import", photos)
    cache = ("--cache", tmp_path / "cache")
    assert "no photos are selected; name some" in command("forget", *cache).sentence
    assert "confirm it with --yes" in command("forget", "--class", "dog", *cache).sentence
    assert command("forget", "--class", "dog", "--dry-run", *cache).out == "10 photos would be forgotten\n"
    done = command("forget", "--class", "dog", "--yes", *cache)
    assert done.out.splitlines() == [
        "10 photos and 0 dead letters forgotten",
        "exports, backups and reports from before still have them: delete those too",
    ]
    assert "11 were there, 11 skipped" in command("import", photos).out
    assert Store.open(tmp_path / "dataset").count() == 11


def test_forgetting_takes_what_was_confirmed(command, photos, tmp_path, monkeypatch):
    """While the question waits, one photo leaves the class and another one joins it: both stay."""
    command("import", photos)

    def swap_and_agree(count):
        assert count == 10
        assert command("relabel", "dog/0.jpg", "cat").code == 0
        assert command("relabel", "cat/0.jpg", "dog").code == 0
        return True

    monkeypatch.setattr(forget, "confirmed", swap_and_agree)
    done = command("forget", "--class", "dog", "--cache", tmp_path / "cache")
    assert done.out.splitlines()[0] == "9 photos and 0 dead letters forgotten"
    assert Store.open(tmp_path / "dataset").count("source IN ('dog/0.jpg', 'cat/0.jpg')") == 2


def contents(path):
    """Return what an exported file contains; Parquet compresses, so its pictures are read from it."""
    if path.suffix == ".parquet":
        return [row["image"]["bytes"] for row in pq.read_table(path).to_pylist()]
    return [path.read_bytes()] if path.is_file() else []


@pytest.mark.parametrize("kind", ["folder", "coco", "parquet", "tfrecord", "fiftyone", "label-studio"])
def test_what_was_forgotten_is_in_no_later_export(command, photos, tmp_path, kind):
    """Neither the class nor a byte of its pictures, in any format."""
    command("import", photos)
    pictures = [path.read_bytes() for path in (photos / "dog").glob("*.jpg")]
    command("forget", "--class", "dog", "--yes", "--cache", tmp_path / "cache")
    done = command("export", tmp_path / "out", "--format", kind)
    assert done.out.splitlines()[-1] == f"11 photos exported to {tmp_path / 'out'}"
    written = [content for path in (tmp_path / "out").rglob("*") for content in contents(path)]
    assert any((photos / "cat" / "0.jpg").read_bytes() in content for content in written)
    assert len(pictures) == 10
    assert not any(picture in content for picture in pictures for content in written)


def test_retention_forgets_the_oldest_within_a_size(command, photos, tmp_path):
    """No limit is an error; a dry run changes nothing; labelled and gold photos go only on demand."""
    command("import", photos, "--hold-out", "20%")
    cache = ("--cache", tmp_path / "cache")
    assert "use --max-size, --max-age or both" in command("retain", *cache).sentence
    kept = command("retain", "--max-size", "1K", "--yes", *cache)
    assert kept.out.splitlines()[0].startswith("nothing to forget; ")
    assert "exceed the size: they are labelled or gold" in kept.out
    limit = ("--max-size", "1K", "--labelled", *cache)
    would = command("retain", *limit, "--dry-run")
    assert re.match(r"1[79] photos of 0\.\d MB would be forgotten", would.out)
    assert Store.open(tmp_path / "dataset").count() == 21
    assert "confirm it with --yes" in command("retain", *limit).sentence
    count = int(would.out.split()[0])
    assert f"{count} photos and 0 dead letters forgotten" in command("retain", *limit, "--yes").out
    left = Store.open(tmp_path / "dataset")
    assert left.count() == left.count("split = 'gold' AND image IS NOT NULL") == 21 - count
    assert re.search(r"retain: max_bytes=1000, labelled=True", command("list", "--changes").out)


def test_repair_finds_nothing_in_a_healthy_dataset(command, photos, tmp_path):
    """A damaged file is named, and taken out on demand."""
    command("import", photos)
    assert command("repair").out == "every row can be read\n"
    data = next((tmp_path / "dataset" / "data").iterdir())
    data.write_bytes(data.read_bytes()[:100])
    found = command("repair")
    assert (found.code, found.out.count(data.name)) == (1, 1)
    assert command("repair", "--yes").code == 0
    assert command("list").err == "0 of 0 photos\n"


def test_repair_goes_back_over_a_damaged_version(command, photos, tmp_path):
    """The version is named, and nothing is changed without --yes; then the version before is in use."""
    command("import", photos)
    newest = min((tmp_path / "dataset" / "_versions").glob("*.manifest"))
    content = newest.read_bytes()
    newest.write_bytes(content[:8] + bytes(len(content) - 16) + content[-8:])
    assert "'gleaner cloud repair' finds damaged files" in command("list").sentence
    found = command("repair")
    assert (found.code, found.out.count(newest.name)) == (1, 1)
    assert "went back to the version before" in command("repair", "--yes").out
    assert command("import", photos).code == 0


def test_an_export_names_what_it_wrote(command, photos, tmp_path):
    """Numbers by class and the folder; it is imported again with the same classes."""
    command("import", photos)
    done = command("export", tmp_path / "out")
    assert done.out.splitlines()[-1] == f"21 photos exported to {tmp_path / 'out'}"
    assert (tmp_path / "out" / "metadata.csv").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["import", "photos", "--dataset", ""], 2, "--dataset: expected a path, got an empty text"),
        (["import", ""], 2, "SOURCE: expected a path, got an empty text"),
        (["train", "--out", " "], 2, "--out: expected a path, got an empty text"),
        (["import", "photos", "--label", ""], 2, "--label: class name '' is empty"),
        (["list", "--lane", "hrad"], 2, "--lane: unknown value 'hrad'; did you mean 'hard'?"),
        (["import", "photos", "--hold-out", "20%", "--split", "gold"], 1, "leave out one of the two"),
        (["adopt", "gone.keras", "--classes", "a,b"], 1, "there is no model gone.keras"),
    ],
)
def test_what_cannot_be_meant_is_refused(called, tmp_path, monkeypatch, words, code, said):
    """An empty path, as of a variable that is not set, would be the working folder; nothing is written."""
    monkeypatch.chdir(tmp_path)
    done = called("cloud", *words)
    assert done.code == code
    assert said in done.err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_an_import_of_nothing_fails(command, tmp_path):
    """For a script that continues with the dataset: every picture was skipped."""
    (tmp_path / "in/cat").mkdir(parents=True)
    (tmp_path / "in/cat/1.jpg").write_bytes(b"")
    done = command("import", tmp_path / "in")
    assert done.code == 1
    assert "cat/1.jpg: expected JPEG or PNG, got an empty file" in done.err
    assert command("list", "--changes").err == "nothing was changed manually\n"


def test_a_misspelt_class_is_pointed_out(command, photos):
    """An empty list, or nothing to forget, might else be taken for the truth."""
    command("import", photos)
    assert command("list", "--class", "dogs").err == (
        "0 of 0 photos; no photo has the class 'dogs'; did you mean 'dog'?\n"
    )
    assert "the class 'dgo'" in command("forget", "--class", "dgo", "--yes").out
