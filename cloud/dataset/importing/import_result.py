"""How to import, and what an import did."""

from collections import Counter
from dataclasses import dataclass, field

from cloud.dataset.rows.row_changes import ImportOutcome
from cloud.dataset.schema import Row, Split


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to import.

    Attributes:
        split: Of pictures whose source names none.
        keep_split: Whether a stored photo keeps its split where the source names none; else another one is
            an error if one of the two is gold.
        by: Name of the person who labelled them.
        hold_out: Share of each class that becomes gold; None for the splits of the source.
        dry_run: Decide everything and store nothing.
    """

    split: Split = "train"
    by: str = "import"
    hold_out: float | None = None
    dry_run: bool = False
    keep_split: bool = False


@dataclass(slots=True)
class ImportResult:
    """Counts of an import.

    Attributes:
        stored: New photos.
        duplicate: Photos with the same content as one in the dataset.
        labelled: Duplicates with a new or another human label.
        corrected: Those of `labelled` that had another label before.
        kept: Duplicates whose label was given later than that of the import, and stays.
        held_out: Photos that became gold by `hold_out`.
        classes: Photos by label, new ones and duplicates.
        gold: Those of them that are gold.
        skipped: Reason by name of each picture that was left out.
        ignored: Reason by name of files that nobody expects to be imported, such as hidden ones.
    """

    stored: int = 0
    duplicate: int = 0
    labelled: int = 0
    corrected: int = 0
    kept: int = 0
    held_out: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    gold: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)


def count_photo(result: ImportResult, name: str, row: Row, outcome: ImportOutcome, *, held_out: bool) -> None:
    """Add the outcome of one picture to the counts."""
    if outcome == "forgotten":
        result.skipped[name] = f"file {name}: this photo was forgotten; it is not stored again"
        return
    if outcome == "other-split":
        other = "gold" if row.split != "gold" else "train"
        result.skipped[name] = f"file {name}: already stored under split {other}, not {row.split}"
        return
    assert row.human_label is not None
    result.stored += outcome == "stored"
    result.duplicate += outcome != "stored"
    result.labelled += outcome in {"labelled", "corrected"}
    result.corrected += outcome == "corrected"
    result.kept += outcome == "kept"
    result.classes[row.human_label] += 1
    result.gold[row.human_label] += row.split == "gold"
    result.held_out += held_out
