"""Import labelled pictures into the dataset.

SOURCE is a folder with one folder per class, also below folders such as train, val, test and gold; a folder
whose file names begin with the class (cat.1.jpg); or a file or folder of another format: CSV, COCO, YOLO
classification, Label Studio, CVAT, Hugging Face (metadata.jsonl, metadata.csv or Parquet), or a video.

A picture that is imported again from another class folder is a correction, with any date of the file.
With --hold-out a share of each class becomes the gold set, which no training sees: the promotion gate judges
new versions on it.
"""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from bus import log
from cli import exit_codes, options
from cli.output import print_error, print_line
from schemas.errors import PermanentError

if TYPE_CHECKING:
    from cloud.dataset.importing.import_result import ImportResult
    from cloud.dataset.store import Store

_MAX_HOLD_OUT = 0.9
_IGNORED_NAMES = 10  # printed for each reason: a folder can have thousands of folders without pictures


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("source", type=options.place, metavar="SOURCE", help="a folder, a file or a URL")
    options.add_dataset(parser)
    parser.add_argument(
        "--split",
        choices=("train", "gold"),
        help="train on them, or evaluate only; folders named train, val, test or gold override it (train)",
    )
    parser.add_argument(
        "--hold-out",
        type=hold_out_share,
        metavar="SHARE",
        help="make this share of each class gold, such as 20%%; near-duplicates stay on one side",
    )
    parser.add_argument(
        "--label",
        type=options.class_label,
        help="class of all pictures; by default the names of the folders",
    )
    parser.add_argument("--recursive", action="store_true", help="include folders inside class folders")
    parser.add_argument(
        "--name-encoding",
        type=name_encoding,
        metavar="ENCODING",
        help="of names in a zip or tar file that does not say it, such as gbk, big5, shift_jis, latin-1",
    )
    parser.add_argument(
        "--every",
        type=options.positive(float),
        default=1.0,
        metavar="S",
        help="of a video: a frame per S s (1)",
    )
    parser.add_argument(
        "--max-frames", type=options.positive(int), default=1000, help="of a video: most frames (1000)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would happen, and store nothing")
    parser.add_argument("--by", type=options.person, default="import", help="who labelled them (import)")


def hold_out_share(text: str) -> float:
    """Parse a share above 0 and up to 90 %, such as `20%` or `0.2`."""
    number, percent = text.removesuffix("%"), text.endswith("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= _MAX_HOLD_OUT:
        raise ArgumentTypeError(f"expected a share such as 20% or 0.2, at most 90%, got {text!r}")
    return share


def name_encoding(text: str) -> str:
    """Parse the name of an encoding for file names."""
    from cloud.dataset.importing.formats.archive_names import is_encoding  # noqa: PLC0415  # each command loads its own

    if not is_encoding(text):
        raise ArgumentTypeError(f"{text!r} is no encoding of file names; try gbk, big5, shift_jis or latin-1")
    return text


def run(arguments: Namespace) -> int:
    """Import what can be read; print counts per class, and what was skipped with the reason."""
    from cli.progress import Bars  # noqa: PLC0415  # each command loads what it needs, and no more
    from cloud.dataset.importing.formats.source import SourceOptions, source_entries  # noqa: PLC0415  # as above
    from cloud.dataset.importing.import_result import ImportOptions  # noqa: PLC0415  # as above
    from cloud.dataset.importing.importer import import_entries  # noqa: PLC0415  # as above

    log.configure("error")  # without Pillow's warnings: what is skipped is listed with the reason
    if arguments.hold_out is not None and arguments.split == "gold":
        raise PermanentError(
            "--split gold makes every photo gold, and --hold-out a share", hint="leave out one of the two"
        )
    wanted = SourceOptions(
        label=arguments.label,
        recursive=arguments.recursive,
        every_s=arguments.every,
        max_frames=arguments.max_frames,
        name_encoding=arguments.name_encoding,
    )
    # Before the dataset: a misspelt folder must not create an empty one.
    with Bars() as bars, source_entries(arguments.source, wanted, bars) as entries:
        store = _open(arguments.dataset, dry_run=arguments.dry_run)
        chosen = ImportOptions(
            split=arguments.split or "train",
            keep_split=arguments.split is None,
            by=arguments.by,
            hold_out=arguments.hold_out,
            dry_run=arguments.dry_run,
        )
        done = import_entries(store, entries, chosen, bars)
    show(done, store, dry_run=arguments.dry_run)
    return exit_codes.OK if done.stored or done.duplicate else exit_codes.FAILED


def _open(dataset: str, *, dry_run: bool) -> "Store | None":
    from cloud.dataset.store import Store  # noqa: PLC0415  # as above

    try:
        return Store.open(dataset, create=not dry_run)
    except PermanentError:
        if not dry_run:
            raise
        return None  # nothing is there yet, and a dry run creates nothing


def _ignored(ignored: dict[str, str]) -> Iterator[str]:
    """Yield a line for each name that is ignored; of many with the same reason the first ones only."""
    seen: Counter[str] = Counter()
    for name, reason in ignored.items():
        seen[reason] += 1
        if seen[reason] <= _IGNORED_NAMES:
            yield f"ignored: {name}: {reason}"
    for reason, count in seen.items():
        if count > _IGNORED_NAMES:
            yield f"ignored: {count - _IGNORED_NAMES} more: {reason}"


def show(done: "ImportResult", store: "Store | None", *, dry_run: bool) -> None:
    """Print the result of an import; what was skipped goes to standard error."""
    for line in _ignored(done.ignored):
        print_error(line)
    for name, reason in done.skipped.items():
        # Reasons of the importer begin with the name.
        line = reason if reason.startswith(f"file {name}") else f"{name}: {reason}"
        print_error(f"skipped: {line}")
    counts = (
        f"{_number(done.stored, 'photo')} stored, {done.duplicate} were there, {len(done.skipped)} skipped"
    )
    print_line(
        f"dry run: {counts}" if dry_run else f"{counts}; dataset version {store.version if store else 0}"
    )
    for label, count in sorted(done.classes.items()):
        gold = f", {done.gold[label]} of them gold" if done.gold[label] else ""
        print_line(f"  {label}: {_number(count, 'photo')}{gold}")
    if done.labelled:
        print_line(f"{_number(done.labelled, 'label')} changed")
    if done.kept:
        print_line(
            f"{_number(done.kept, 'label')} differs from the folder and was given later: kept;"
            " 'gleaner cloud relabel' changes it"
        )
    stored = {} if store is None else _labels(store)
    show_similar([*done.classes, *stored])
    if not dry_run and store is not None and not store.count("split = 'gold'"):
        print_line(
            "no gold photos: 'gleaner cloud import SOURCE --hold-out 20%' makes some of each class gold"
        )


def _labels(store: "Store") -> Mapping[str, int]:
    from cloud.dataset.training_set import label_counts  # noqa: PLC0415  # as above

    return label_counts(store)


def show_similar(names: list[str]) -> None:
    """Point out classes whose names are nearly equal."""
    from schemas.class_names import similar_names  # noqa: PLC0415  # as above

    for group in similar_names(names):
        listed = " and ".join(repr(name) for name in group)
        print_line(
            f"classes {listed} have nearly the same name: 'gleaner cloud merge-class FROM INTO' joins two"
        )


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
