"""Store the pictures of an import: check each, resolve its label, hold some out as gold, and count."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bus.mqtt.presence import now_ms
from cloud.dataset.fingerprint import fingerprint
from cloud.dataset.importing.entry import Entry, Item, PassedOver, is_archive, is_file
from cloud.dataset.importing.hold_out import Photo, choose_gold
from cloud.dataset.importing.import_result import ImportOptions, ImportResult, count_photo
from cloud.dataset.importing.picture import MAX_IMAGE_BYTES, Read, try_read
from cloud.dataset.rows.row_changes import ImportOutcome, apply_import
from cloud.dataset.schema import Record, Row
from cloud.dataset.store import HAS_IMAGE, Store
from cloud.progress import NoProgress, Progress
from schemas.errors import PermanentError
from schemas.text import escaped

_BATCH_PHOTOS = 64
_BATCH_BYTES = 16 * 1024 * 1024
_DECIDING_COLUMNS = [
    "split",
    "origin",
    "human_label",
    "human_at_ms",
    "human_by",
    "imported_label",
    "forgotten_at_ms",
    "received_at_ms",
    "source",
]


@dataclass(frozen=True, slots=True)
class _Sides:
    """Which photos are gold, and whose split may not change.

    Attributes:
        gold: Ids that `hold_out` chose; None without it.
        named: Ids whose split the source or the caller names, so that another stored one is an error.
    """

    gold: set[str] | None
    named: set[str] = field(default_factory=set)

    def frozen(self, photo_id: str) -> bool:
        """Return whether a stored photo keeps its split without an error, or `hold_out` moves it to gold."""
        return photo_id not in self.named or (self.gold is not None and photo_id in self.gold)


def check_any(source: Path | str, entries: Sequence[Entry]) -> None:
    """Raise if there is nothing to import.

    Raises:
        PermanentError: No entry is a picture.
    """
    if any(isinstance(entry, Item) for entry in entries):
        return
    passed_over = [entry for entry in entries if isinstance(entry, PassedOver)]
    told = next((entry for entry in passed_over if not entry.expected), next(iter(passed_over), None))
    seen = f" ({escaped(told.name)}: {escaped(told.reason)})" if told else ""
    if is_file(Path(source)) and not is_archive(str(source)):
        raise PermanentError(f"cannot import {escaped(source)}: it lists no picture that is there{seen}")
    raise PermanentError(
        f"cannot import folder {escaped(source)}: no class folder with photos{seen}",
        hint="put the photos of each class into a folder of its name, such as DIR/cat/1.jpg; or use --label",
    )


def import_entries(
    store: Store | None,
    entries: Sequence[Entry],
    options: ImportOptions,
    progress: Progress | None = None,
) -> ImportResult:
    """Import pictures from any source.

    A picture of another format than JPEG and PNG is converted, and a large one scaled down.

    The label is stored as a human label, dated as the source says, but never later than now. A label that a
    person gave later is kept, and a second run changes nothing. A picture whose source gives it another label
    than at its last import is a correction, made now.

    Args:
        store: The dataset; None for an empty one, with `dry_run`.
        entries: What the source has; see `cloud/dataset/importing/entry.py`.
        options: How to import.
        progress: Advances by entries with pictures.

    Returns:
        Counts, and what was skipped: damaged, too large, in two classes, forgotten, or stored under another
        split where one of the two is the gold set (a photo must not be both trained and measured on).

    Raises:
        TransientError: The dataset cannot be written now; the batches before are stored.
    """
    result, progress = ImportResult(), progress or NoProgress()
    for entry in entries:
        if isinstance(entry, PassedOver):
            (result.ignored if entry.expected else result.skipped)[entry.name] = entry.reason
    items = [entry for entry in entries if isinstance(entry, Item)]
    sides = _Sides(None)
    if options.hold_out is not None:
        progress.start("compare", len(items))
        sides = _Sides(_hold_out(store, items, options, progress))
    progress.start("import", len(items))
    classes: dict[str, str] = {}
    for batch in _batches(items):
        rows = _read_batch(batch, options, classes, result, sides)
        _store_batch(store, rows, sides, result, dry_run=options.dry_run)
        progress.advance(len(batch))
    return result


def _hold_out(
    store: Store | None, items: Sequence[Item], options: ImportOptions, progress: Progress
) -> set[str]:
    """Return the ids of the new photos to hold out; reads every picture a second time."""
    assert options.hold_out is not None
    photos = {} if store is None else stored_photos(store)
    new: dict[str, Photo] = {}
    for item in items:
        read = try_read(item, options)
        progress.advance()
        if not isinstance(read, Read):
            continue
        assert read.row.human_label is not None
        # A split that the source names is kept: it may be known from elsewhere.
        side = None if item.split is None else item.split == "gold"
        key = read.row.photo_id
        if key not in photos:
            new.setdefault(key, Photo(key, read.row.human_label, read.fingerprint, side))
        elif side is not None and photos[key].gold is None:
            photos[key] = replace(photos[key], gold=False)
    # Stored without a person's label, as samples are: a model may have labelled and trained on them.
    others = {} if store is None else store.find(list(new), ["split", "received_at_ms"])
    for key, row in others.items():
        if row["received_at_ms"] is not None:
            new[key] = replace(new[key], gold=row["split"] == "gold")
    return choose_gold([*photos.values(), *new.values()], options.hold_out)


def stored_photos(store: Store) -> dict[str, Photo]:
    """Read the photos with a human label for `choose_gold`, by id.

    Imported photos that no version was trained on are new to it: they may still become gold.
    """
    frozen = store.is_trained()
    found = {}
    columns = ["photo_id", "image", "human_label", "split", "origin"]
    for row in store.scan(columns, where=f"{HAS_IMAGE} AND human_label IS NOT NULL"):
        try:
            seen = fingerprint(row["image"])  # type: ignore[arg-type]  # bytes
        except Exception:  # noqa: BLE001, S112  # cannot be decoded: near to nothing
            continue
        gold = row["split"] == "gold"
        side = None if not (gold or frozen) and row["origin"] == "import" else gold
        key = str(row["photo_id"])
        found[key] = Photo(key, str(row["human_label"]), seen, side)
    return found


def _read_batch(
    batch: Sequence[Item],
    options: ImportOptions,
    classes: dict[str, str],
    result: ImportResult,
    sides: _Sides,
) -> dict[str, Row]:
    """Read pictures into rows by name; those that are skipped go into the result.

    `classes` has the class of every photo id of the import so far, and is updated, as `sides.named` is.
    """
    rows: dict[str, Row] = {}
    for item in batch:
        read = try_read(item, options)
        if isinstance(read, str):
            result.skipped[item.name] = read
            continue
        label = read.row.human_label
        assert label is not None
        first = classes.setdefault(read.row.photo_id, label)
        if first == label:
            rows[item.name] = read.row
            if item.split is not None or not (options.keep_split or sides.gold is not None):
                sides.named.add(read.row.photo_id)
        else:
            reason = f"file {item.name}: the same photo is in class folder {first!r} too"
            result.skipped[item.name] = reason
    return rows


def _store_batch(
    store: Store | None,
    rows: dict[str, Row],
    sides: _Sides,
    result: ImportResult,
    *,
    dry_run: bool,
) -> None:
    """Store new photos, and change the labels of those that are stored already."""
    placed = {name: _placed(row, sides.gold) for name, row in rows.items()}
    by_id = {row.photo_id: row for row in reversed(placed.values())}
    outcomes = _decide(store, by_id, sides, dry_run=dry_run)
    counted: set[str] = set()
    for name, row in placed.items():
        outcome = outcomes[row.photo_id] if row.photo_id not in counted else "there"
        counted.add(row.photo_id)
        held_out = sides.gold is not None and row.photo_id in sides.gold
        count_photo(result, name, row, outcome, held_out=held_out)


def _placed(row: Row, gold: set[str] | None) -> Row:
    if gold is None or row.photo_id not in gold:
        return row
    return replace(row, split="gold")


def _decide(
    store: Store | None, rows: dict[str, Row], sides: _Sides, *, dry_run: bool
) -> dict[str, ImportOutcome]:
    """Return what happens, or with `dry_run` would happen, to each photo; store it."""
    outcomes: dict[str, ImportOutcome] = dict.fromkeys(rows, "stored")
    if store is None:
        return outcomes
    now = now_ms()
    if not dry_run:
        stored = store.upsert(list(rows.values()))
        known = [key for key, outcome in stored.items() if outcome == "duplicate"]
    else:
        known = list(rows)
    existing = store.find(known, _DECIDING_COLUMNS)
    changes = list[str]()
    for key, record in existing.items():
        if record["received_at_ms"] is None:  # a label that waits for this photo, in a dry run
            continue
        changed, outcomes[key] = apply_import(rows[key], record, now, frozen=sides.frozen(key))
        if changed is not None:
            changes.append(key)

    def change(record: Record) -> Record | None:
        key = record["photo_id"]
        return apply_import(rows[key], record, now, frozen=sides.frozen(key))[0]

    if changes and not dry_run:
        store.change(changes, change)
    return outcomes


def _batches(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Group items into batches that fit into memory and are one commit each."""
    batch, size_bytes = list[Item](), 0
    for item in items:
        batch.append(item)
        size_bytes += min(item.size_bytes, MAX_IMAGE_BYTES)  # a larger one is scaled down
        if len(batch) >= _BATCH_PHOTOS or size_bytes >= _BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch
