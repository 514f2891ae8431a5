"""Write exports of picture files: folder per class, COCO, FiftyOne and Label Studio."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from cloud.dataset.exporting.photo import ExportedPhoto, folder_name
from cloud.dataset.table_cells import inert_cell

METADATA = "metadata.csv"
"""Lists every file with its label, who gave it, and where the photo is from; as in a Hugging Face folder."""


def write_folder(directory: Path, photos: Iterator[ExportedPhoto], classes: Sequence[str]) -> None:
    """Write `SPLIT/CLASS/ID.jpg`, and `metadata.csv`; `gleaner cloud import` reads it again."""
    del classes  # the folders name them
    _write_manifest(directory, _placed(directory, photos))


def _placed(directory: Path, photos: Iterator[ExportedPhoto]) -> Iterator[tuple[str, ExportedPhoto]]:
    for photo in photos:
        name = f"{photo.split}/{folder_name(photo.label)}/{photo.file_name}"
        _write(directory / name, photo.image)
        yield name, photo


def write_coco(directory: Path, photos: Iterator[ExportedPhoto], classes: Sequence[str]) -> None:
    """Write `images/` and `annotations/SPLIT.json`; each annotation is a box around the whole picture."""
    numbers = {name: number for number, name in enumerate(classes, start=1)}
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    images: dict[str, list[dict[str, object]]] = {}
    annotations: dict[str, list[dict[str, object]]] = {}
    for number, photo in enumerate(photos, start=1):
        _write(directory / "images" / photo.file_name, photo.image)
        images.setdefault(photo.split, []).append(
            {"id": number, "file_name": photo.file_name, "width": photo.width, "height": photo.height}
        )
        annotations.setdefault(photo.split, []).append(
            {
                "id": number,
                "image_id": number,
                "category_id": numbers[photo.label],
                "bbox": [0, 0, photo.width, photo.height],
                "area": photo.width * photo.height,
                "iscrowd": 0,
                "attributes": photo.facts,
            }
        )
    for split, of_split in images.items():
        content = {"images": of_split, "annotations": annotations[split], "categories": categories}
        _write_json(directory / "annotations" / f"{split}.json", content)


def write_fiftyone(directory: Path, photos: Iterator[ExportedPhoto], classes: Sequence[str]) -> None:
    """Write a FiftyOneImageClassificationDataset: `data/` and `labels.json`, and `metadata.csv`."""
    numbers, labels = {name: number for number, name in enumerate(classes)}, dict[str, int]()

    def placed() -> Iterator[tuple[str, ExportedPhoto]]:
        for photo in photos:
            _write(directory / "data" / photo.file_name, photo.image)
            labels[photo.photo_id] = numbers[photo.label]
            yield f"data/{photo.file_name}", photo

    _write_manifest(directory, placed())
    _write_json(directory / "labels.json", {"classes": list(classes), "labels": labels})


def write_label_studio(directory: Path, photos: Iterator[ExportedPhoto], classes: Sequence[str]) -> None:
    """Write `images/`, `tasks.json` and `config.xml` for local storage; models' labels are predictions."""
    tasks = []
    for photo in photos:
        _write(directory / "images" / photo.file_name, photo.image)
        choice = {"from_name": "class", "to_name": "image", "type": "choices"}
        given: dict[str, object] = {"result": [choice | {"value": {"choices": [photo.label]}}]}
        address = f"/data/local-files/?d={directory.name}/images/{photo.file_name}"
        # The split is in the data, because Label Studio's JSON-MIN and CSV have nothing of `meta`.
        data = {"image": address, "split": photo.split}
        task: dict[str, object] = {"data": data, "meta": photo.facts}
        if photo.source in {"human", "device"}:
            task["annotations"] = [given]
        else:
            task["predictions"] = [given | {"model_version": photo.by, "score": photo.confidence}]
        tasks.append(task)
    _write_json(directory / "tasks.json", tasks)
    values = "".join(f"<Choice value={_attribute(name)}/>" for name in classes)
    config = f'<View><Image name="image" value="$image"/><Choices name="class" toName="image">{values}'
    _write(directory / "config.xml", f"{config}</Choices></View>\n".encode())


def _attribute(text: str) -> str:
    from xml.sax.saxutils import quoteattr  # noqa: PLC0415  # for this format alone

    return quoteattr(text)


def _write_manifest(directory: Path, placed: Iterator[tuple[str, ExportedPhoto]]) -> None:
    with (directory / METADATA).open("w", encoding="utf-8", newline="") as file:
        writer: csv.DictWriter[str] | None = None
        for name, photo in placed:
            row = {column: inert_cell(text) for column, text in ({"file_name": name} | photo.facts).items()}
            if writer is None:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
            writer.writerow(row)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _write_json(path: Path, content: object) -> None:
    _write(path, json.dumps(content, ensure_ascii=False, indent=1).encode())
