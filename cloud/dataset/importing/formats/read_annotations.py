"""Read the exports of annotation tools: COCO, Label Studio, CVAT and FiftyOne.

A picture gets one label, or is listed. These tools also draw boxes. Gleaner labels whole pictures: one whose
boxes all have one label gets it.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree as ET

from cloud.dataset.importing.entry import (
    PICTURE_SUFFIXES,
    Entry,
    Item,
    NotAListError,
    PassedOver,
    file_item,
    is_file,
    label_text,
    listed_item,
)
from cloud.dataset.importing.formats.folder import split_of
from cloud.dataset.schema import Split
from schemas.errors import PermanentError
from schemas.text import escaped

_MAX_BYTES = 1 << 30
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
_PICTURE_KEYS = ("image", "img", "picture", "photo", "url", "file")
_CHOICE_KEYS = ("choice", "choices", "label", "class", "category")
_ENTITY = b"<!ENTITY"
_TASK_ADDRESSES = ("/data/local-files/?d=", "/data/upload/")

_R = TypeVar("_R")


def json_entries(export: Path, label: str | None = None) -> list[Entry]:
    """List the pictures of a COCO, FiftyOne or Label Studio file; a COCO file named after a split gives it.

    Args:
        export: A JSON file; pictures are looked for in its folder and in folders around it.
        label: Class of pictures without one.

    Raises:
        NotAListError: It is none of these.
        PermanentError: It is too large.
    """
    content = _load(export)
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        split = coco_split(export)
        return [
            replace(entry, split=split) if isinstance(entry, Item) else entry
            for entry in _coco(export, content, label)
        ]
    if isinstance(content, dict) and isinstance(content.get("labels"), dict):
        return list(_fiftyone(export, content, label))
    if isinstance(content, list) and any(map(_is_task, _objects(content))):
        return list(_label_studio(export, content, label))
    raise NotAListError(
        f"cannot import {export}: not an export of COCO, FiftyOne or Label Studio",
        hint="export as COCO, JSON, JSON-MIN or CSV, or make a folder per class",
    )


def coco_split(export: Path) -> Split | None:
    """Return the split that a COCO file is named after, as `gold.json` or `instances_val2017.json`."""
    return split_of(export.stem) or split_of(export.stem.rpartition("_")[2])


def cvat_entries(export: Path, label: str | None = None) -> list[Entry]:
    """List the pictures of CVAT's `annotations.xml` ("CVAT for images").

    Raises:
        PermanentError: It cannot be read as such.
    """
    content = _read(export)
    if _ENTITY in content:
        raise PermanentError(f"cannot import {export}: it declares entities, as CVAT's exports never do")
    try:
        root = ET.fromstring(content)  # noqa: S314  # without entities nothing can grow
    except (ET.ParseError, LookupError, ValueError) as error:  # the others: of an encoding without decoder
        raise PermanentError(f"cannot import {export}: {error}") from None
    images = list(root.iter("image"))
    if root.tag != "annotations" or not images:
        raise PermanentError(f"cannot import {export}: no images of CVAT in it")
    return [_cvat_entry(export, number, image, label) for number, image in enumerate(images)]


def _cvat_entry(export: Path, number: int, image: ET.Element, label: str | None) -> Entry:
    if not (name := image.get("name")):
        return PassedOver(f"{export.name}: image {number}", "no name")
    return _labelled(export, name, (shape.get("label") for shape in image), label)


def _coco(export: Path, content: Mapping[str, Any], label: str | None) -> Iterator[Entry]:
    names = {_key(one.get("id")): one.get("name") for one in _objects(content.get("categories"))}
    given: defaultdict[str, list[object]] = defaultdict(list)
    for annotation in _objects(content.get("annotations")):
        given[_key(annotation.get("image_id"))].append(names.get(_key(annotation.get("category_id"))))
    for number, image in enumerate(_objects(content["images"])):
        name = image.get("file_name")
        if isinstance(name, str) and name:
            yield _labelled(export, name, given[_key(image.get("id"))], label)
        else:
            yield PassedOver(f"{export.name}: image {number}", "no file_name")


def _key(value: object) -> str:
    """Return an id as text: some tools write the same one as 1, 1.0 and "1"."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _fiftyone(export: Path, content: Mapping[str, Any], label: str | None) -> Iterator[Entry]:
    """Yield the pictures of a FiftyOneImageClassificationDataset: labels by file name without suffix."""
    classes = content.get("classes")
    names = classes if isinstance(classes, list) else []
    files = {path.stem: path.name for path in sorted((export.parent / "data").glob("*")) if is_file(path)}
    files |= {path.name: path.name for path in sorted((export.parent / "data").glob("*")) if is_file(path)}
    for picture, given in content["labels"].items():
        found = given.get("label") if isinstance(given, dict) else given
        if isinstance(found, int) and not isinstance(found, bool) and names:
            found = names[found] if 0 <= found < len(names) else None
        yield _labelled(export, files.get(picture, picture), [found], label)


def is_task_address(name: str) -> bool:
    """Return whether a list names a picture as Label Studio does: of its local storage, or of an upload."""
    return name.startswith(_TASK_ADDRESSES)


def task_entry(table: Path, address: str, label: str | None) -> Entry:
    """Return the entry of a picture that a table names as Label Studio does."""
    return _labelled(table, _local_name(address), [label], None)


def newest_annotations(rows: Iterable[_R]) -> list[_R]:
    """Return rows of Label Studio, which writes one per annotation: of each picture the newest."""
    newest: dict[object, tuple[str, int]] = {}
    listed = list(rows)
    for number, row in enumerate(listed):
        if (key := _annotated(row)) is not None:
            newest[key] = max(newest.get(key, ("", -1)), (_annotated_at(row), number))
    kept = {number for _, number in newest.values()}
    return [row for number, row in enumerate(listed) if _annotated(row) is None or number in kept]


def _annotated(row: object) -> object:
    """Return the task and picture of a row of one annotation, None for any other row."""
    if not isinstance(row, Mapping) or "annotation_id" not in row or "annotations" in row:
        return None
    return row.get("id"), _picture_of(row)


def _annotated_at(row: object) -> str:
    return str(row.get("updated_at") or row.get("created_at") or "") if isinstance(row, Mapping) else ""


def _label_studio(export: Path, tasks: list[object], label: str | None) -> Iterator[Entry]:
    for number, task in enumerate(newest_annotations(tasks)):
        picture = _picture_of(task) if isinstance(task, dict) else None
        if not isinstance(task, dict) or picture is None:
            yield PassedOver(f"{export.name}: task {number}", "no picture")
            continue
        annotation = _last_annotation(task)
        found = _labelled(export, picture, _choices(annotation), label)
        at_ms = _time_ms(annotation.get("updated_at") or annotation.get("created_at"))
        if isinstance(found, Item):
            dated_ms = found.at_ms if at_ms is None else at_ms
            found = replace(found, at_ms=dated_ms, split=_split_of_task(task))
        yield found


def _split_of_task(task: Mapping[str, Any]) -> Split | None:
    """Return the split that our export wrote into a task; of JSON-MIN its fields are those of its data."""
    for place in (task.get("data"), task.get("meta"), task):
        if isinstance(place, dict) and isinstance(written := place.get("split"), str):
            return split_of(written)
    return None


def _is_task(task: Mapping[str, Any]) -> bool:
    """Return whether an object is a task of Label Studio, and no other one that names a file."""
    return _picture_of(task) is not None and ("data" in task or any(key in task for key in _CHOICE_KEYS))


def _picture_of(task: Mapping[Any, Any]) -> str | None:
    """Return the file of a task; of an export as JSON-MIN its fields are those of its data.

    Which field has the picture is up to the project. A task may have texts too, also with a dot.
    """
    data = task.get("data")
    fields = data if isinstance(data, dict) else task
    names = {str(key).casefold(): _local_name(one) for key, one in fields.items() if isinstance(one, str)}
    pictures = [name for name in names.values() if Path(name).suffix.lower() in PICTURE_SUFFIXES]
    named = [names[key] for key in _PICTURE_KEYS if names.get(key)]
    return next((name for name in (*pictures, *named)), None)


def _last_annotation(task: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the annotation that counts: the newest that was not cancelled; of JSON-MIN the task itself."""
    done = [one for one in _objects(task.get("annotations")) if not one.get("was_cancelled")]
    if not done:
        return {} if "annotations" in task else task
    return max(done, key=lambda one: str(one.get("updated_at") or one.get("created_at") or ""))


def _choices(annotation: Mapping[str, Any]) -> Iterator[object]:
    if "result" not in annotation:
        value = next((annotation[key] for key in _CHOICE_KEYS if key in annotation), None)
        value = value.get("choices", value) if isinstance(value, dict) else value  # of a multiple choice
        yield from value if isinstance(value, list) else [value]
        return
    for result in _objects(annotation["result"]):
        value = result.get("value")
        for values in value.values() if isinstance(value, dict) else ():
            if isinstance(values, list) and all(isinstance(one, str) for one in values):
                yield from values


def _local_name(place: str) -> str:
    """Return the file that a task's address means: of local storage, of an upload, or of a bucket."""
    try:
        parts = urlsplit(place)
    except ValueError:  # a bracket that is not closed
        return place
    if "d" in (query := parse_qs(parts.query)):
        return query["d"][0]
    return unquote(parts.path).removeprefix("/data/upload/").removeprefix("/data/").lstrip("/")


def _labelled(export: Path, name: str, labels: Iterable[object], default: str | None) -> Entry:
    """Return the entry of a picture with one label, or why it has none."""
    given = [one for one in labels if one not in (None, "")]  # 0 is a label
    if not all(isinstance(one, str | int | float) for one in given):
        return PassedOver(name, "a label that is not text")
    distinct = sorted({label_text(one) for one in given if isinstance(one, str | int | float)})
    if len(distinct) > 1:
        return PassedOver(name, f"{len(distinct)} labels: {', '.join(distinct)}")
    if not distinct and default is None:
        return PassedOver(name, "no label")
    text = distinct[0] if distinct else default
    if "://" in name:
        return listed_item(export.parent, name, text)
    places = _find(export, name)
    if len(places) > 1:
        where = " and ".join(escaped(path.parent.name) for path in places[:2])
        return PassedOver(name, f"files of this name are in {where}; write the folder into the list")
    return file_item(places[0], name, text)


def _find(export: Path, name: str) -> list[Path]:
    """Return where a picture of an export may be: next to it, or in the usual folders around it.

    Several places are returned if it is unclear which of them is meant.
    """
    relative = PurePosixPath(name.replace("\\", "/"))
    forms = (relative, relative.name, _UPLOAD_PREFIX.sub("", relative.name))
    here = export.parent
    around = [*here.parent.glob("*"), *here.glob("images/*"), *here.parent.glob("images/*")]
    around = sorted(path for path in around if path.is_dir() and not path.name.startswith("."))
    # instances_val2017.json is about val2017/, even if train2017/ has pictures of the same names.
    words = re.split(r"[^0-9a-z]+", export.stem.casefold())
    of_its_name = [path for path in around if path.name.casefold() in words]
    usual = [here, here / "images", here.parent, here.parent / "images", here / "data"]
    usual += [here / "upload", here.parent / "upload"]  # as in the media folder of Label Studio
    if found := _files([*of_its_name, *usual], forms):
        return found[:1]
    return _files(around, forms) or [here / relative]


def _files(folders: Iterable[Path], forms: Sequence[PurePosixPath | str]) -> list[Path]:
    """Return the files that are there, each once, in the order of the folders."""
    found = (folder / name for folder in folders for name in forms if is_file(folder / name))
    return list({path.resolve(): path for path in found}.values())


def _objects(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _time_ms(text: object) -> int | None:
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return max(0, int(at.replace(tzinfo=at.tzinfo or UTC).timestamp() * 1000))


def _load(export: Path) -> object:
    try:
        return json.loads(_read(export))
    except (ValueError, RecursionError) as error:
        raise NotAListError(f"cannot import {export}: no JSON: {error}") from None


def _read(export: Path) -> bytes:
    if export.stat().st_size > _MAX_BYTES:
        raise PermanentError(f"cannot import {export}: larger than {_MAX_BYTES} bytes", hint="split it")
    return export.read_bytes().removeprefix(b"\xef\xbb\xbf")
