"""The models folder. No other file knows where versions, bundles, cards, rollout states and locks are."""

import hashlib
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import structs

from bus.files.atomic_file import sync_file, sync_folder, write_atomic
from bus.files.file_lock import LockHeldError, exclusive_lock
from cloud.registry.gold_mistakes import GoldMistakes, read_gold_mistakes
from cloud.registry.model_card import Card, decode_card, encode_card
from cloud.registry.rollout_state import Rollout, RolloutFile
from schemas.errors import PermanentError, TransientError
from schemas.parts import SUFFIX, PartsError, decode_part_list

CARD_PATH = "assets.extra/model.json"
"""Path of the card below a version's directory, and its name inside a bundle."""
REPORT_NAME = "report.html"
"""Name of the report in a version's directory; it is not in the bundle."""
_MISTAKES_NAME = "gold-mistakes.json"
_CHUNK_BYTES = 1 << 20


class RoundRunningError(TransientError):
    """Another training round holds the lock of the models folder."""


@dataclass(frozen=True, slots=True)
class Champion:
    """The version that a new one has to beat.

    Attributes:
        directory: its SavedModel.
        card: its card.
        best_gold_accuracy: highest accuracy of any promoted version, by digest of the gold set.
    """

    directory: Path
    card: Card
    best_gold_accuracy: dict[str, float]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A packed version, as a release describes it.

    Attributes:
        path: the tar file.
        card: the card inside it.
        sha256: of the file, 64 hex digits.
        size_bytes: of the file.
        parts: digest of the lists of its parts next to it, 64 hex digits; None without them.
    """

    path: Path
    card: Card
    sha256: str
    size_bytes: int
    parts: str | None = None


class Registry:
    """The versions in one models folder.

    Files:
        N/: SavedModel of version N, with its card in `assets.extra/model.json`, `report.html`, and
            `gold-mistakes.json` if there is a gold set.
        N.tar: bundle of version N, which edges fetch. It is complete before `N/` exists.
        N.tar.parts, N.tar.parts.parts: lists of its parts, by which edges fetch only what they lack.
        rollout-N.json: state of the rollout of version N.
        tensorboard/N/: losses of version N, if it was trained from scratch.
        .round.lock, .rollout.lock: locked while a training round or a rollout is running.
        .round.log: output of the steps of the latest round.

    Args:
        folder: The models folder; it may not exist yet.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    @classmethod
    def of_bundle(cls, bundle: Path) -> "Registry":
        """Return the registry that a bundle lies in."""
        return cls(bundle.parent)

    @property
    def round_log(self) -> Path:
        """Where the steps of the latest training round print."""
        return self.folder / ".round.log"

    @property
    def drift_file(self) -> Path:
        """What was last announced of a drift, as JSON."""
        return self.folder / ".drift.json"

    def version_dir(self, version: int) -> Path:
        """Return where a version's SavedModel is, or will be."""
        return self.folder / str(version)

    def bundle_path(self, version: int) -> Path:
        """Return where a version's bundle is, or will be."""
        return self.folder / f"{version}.tar"

    def rollout_file(self, version: int) -> RolloutFile:
        """Return the file that keeps the rollout of a version."""
        return RolloutFile(self.folder / f"rollout-{version}.json")

    def versions(self) -> list[int]:
        """Return the numbers of all version directories, ascending."""
        # Only numbers: a directory that is being written is named tmp-N.
        return sorted(int(path.name) for path in self.folder.glob("*") if path.name.isdecimal())

    def next_version(self) -> int:
        """Return the number of the next version, 1 in an empty folder.

        A number is not used again while a bundle or a rollout's state is left of the version that had it: the
        new version would take the old one's outcome.
        """
        left = [path.stem for path in self.folder.glob("*.tar")]
        left += [path.stem.removeprefix("rollout-") for path in self.folder.glob("rollout-*.json")]
        return max([*self.versions(), *(int(name) for name in left if name.isdecimal())], default=0) + 1

    def check_new(self, version: int) -> None:
        """Refuse a version that could not be added.

        Raises:
            PermanentError: The number is below 1 or in use, or the folder is a file.
        """
        if version < 1:
            raise PermanentError("version", expected="a number of at least 1", got=version)
        self._check_folder()
        if self.version_dir(version).exists():
            raise PermanentError(
                f"version {version} already exists in {self.folder}",
                hint="choose another number, or none to take the next one",
            )

    def card(self, version: int | None = None) -> Card:
        """Read the card of a version.

        Args:
            version: Its number; None for the newest.

        Raises:
            PermanentError: The version does not exist, or its card or rollout state cannot be read.
        """
        numbers = [number for number in self.versions() if self.card_path(number).is_file()]
        if not numbers:
            raise PermanentError(f"no version in {self.folder}", hint="train one with 'gleaner cloud train'")
        if version is not None and version not in numbers:
            found = ", ".join(map(str, numbers))
            raise PermanentError(f"no version {version} in {self.folder}", hint=f"choose one of {found}")
        return self._read_card(version or numbers[-1])

    def cards(self) -> list[Card]:
        """Read the cards of all versions, oldest first; none if the folder does not exist.

        Raises:
            PermanentError: A card or a rollout state cannot be read.
        """
        return [self._read_card(number) for number in self.versions() if self.card_path(number).is_file()]

    def write_card(self, card: Card, directory: Path | None = None) -> None:
        """Write the card of a version.

        Args:
            card: The card.
            directory: The version's directory while it is being written, under its temporary name.
        """
        write_atomic((directory or self.version_dir(card.version)) / CARD_PATH, encode_card(card))

    def events_dir(self, version: int) -> Path:
        """Return where TensorBoard finds the losses of a version that was trained from scratch."""
        return self.folder / "tensorboard" / str(version)

    def report_path(self, version: int) -> Path:
        """Return where the report of a version is."""
        return self.version_dir(version) / REPORT_NAME

    def write_report(self, page: str, directory: Path) -> None:
        """Write the report of a version.

        Args:
            page: HTML.
            directory: The version's directory while it is being written, under its temporary name.
        """
        write_atomic(directory / REPORT_NAME, page.encode())

    def gold_mistakes(self, version: int) -> GoldMistakes | None:
        """Return what a version answered wrong on the gold set; None if it was not measured.

        Raises:
            PermanentError: The file cannot be read.
        """
        return read_gold_mistakes(self.version_dir(version) / _MISTAKES_NAME)

    def write_gold_mistakes(self, found: GoldMistakes, directory: Path) -> None:
        """Write what a version answered wrong on the gold set.

        Args:
            found: The mistakes.
            directory: The version's directory while it is being written, under its temporary name.
        """
        write_atomic(directory / _MISTAKES_NAME, msgspec.json.encode(found))

    def sync_files(self, directory: Path) -> None:
        """Sync the files of a new version to disk, before its directory gets its final name.

        Args:
            directory: The version's directory under its temporary name. Its bundle is synced by `pack`.
        """
        for folder, _, names in os.walk(directory):
            for name in names:
                sync_file(Path(folder, name))
            sync_folder(Path(folder))

    def sync_names(self) -> None:
        """Sync the names in the models folder, so that a version that was just added survives a power cut."""
        sync_folder(self.folder)

    def bundle(self, version: int) -> Bundle:
        """Read the bundle of a version.

        Raises:
            PermanentError: It does not exist or cannot be read.
        """
        return read_bundle(self.bundle_path(version))

    def parent_bundle(self, challenger: Bundle) -> Bundle:
        """Read the bundle of the version that a challenger was trained to replace.

        Raises:
            PermanentError: It has no parent, or the parent's bundle cannot be read.
        """
        parent = challenger.card.parent
        if parent is None:
            raise PermanentError(
                f"version {challenger.card.version} has no parent to roll back to",
                hint="name a champion, or release it with 'gleaner cloud release'",
            )
        return self.bundle(parent)

    def champion(self, *, without: int | None = None) -> Champion | None:
        """Return the newest promoted version, None before the first one.

        Args:
            without: Ignore this version.

        Raises:
            PermanentError: A card or a rollout state cannot be read.
        """
        # A version that was rolled back is not promoted: the one before it is served again.
        promoted = [card for card in self.cards() if is_promoted(card) and card.version != without]
        if not promoted:
            return None
        # Over all versions, not only the newest: small losses must not add up from version to version.
        best: dict[str, float] = {}
        for card in promoted:
            if card.metrics is not None and card.gold_digest is not None:
                best[card.gold_digest] = max(best.get(card.gold_digest, 0.0), card.metrics.accuracy)
        return Champion(self.version_dir(promoted[-1].version), promoted[-1], best)

    def newest_rollout(self) -> Rollout | None:
        """Return the rollout whose state changed last, None if there was none.

        Raises:
            PermanentError: Its state cannot be read.
        """
        # By time, not by version: an older version can be rolled out again.
        files = sorted(self.folder.glob("rollout-*.json"), key=lambda path: path.stat().st_mtime)
        return RolloutFile(files[-1]).read() if files else None

    @contextmanager
    def round_lock(self) -> Iterator[int]:
        """Hold the lock that a training round needs, for the length of a block.

        Yields:
            The locked descriptor. Child processes that inherit it keep the lock until they end: a second
            round cannot start while a training of a killed trainer is still running.

        Raises:
            RoundRunningError: Another round is running.
            PermanentError: The folder is a file.
        """
        self._check_folder()
        self.folder.mkdir(parents=True, exist_ok=True)
        # A stack, since errors of the block must not be mapped: it may take other locks.
        with ExitStack() as stack:
            try:
                descriptor = stack.enter_context(exclusive_lock(self.folder / ".round.lock"))
            except LockHeldError:
                raise RoundRunningError(
                    f"another training round is running in {self.folder}", hint="try again when it has ended"
                ) from None
            yield descriptor

    def _check_folder(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise PermanentError(f"models folder {self.folder} is a file", hint="choose another folder")

    def card_path(self, version: int) -> Path:
        """Return where the card of a version is."""
        return self.version_dir(version) / CARD_PATH

    def _read_card(self, version: int) -> Card:
        path = self.card_path(version)
        card = decode_card(path.read_bytes(), path)
        # The phase is only in the rollout's file: bundles are immutable, and each contains its card.
        rollout = self.rollout_file(version).read()
        return structs.replace(card, rolled_back=rollout is not None and rollout.phase == "returned")


def is_promoted(card: Card) -> bool:
    """Return True if a version may be served: the gate promoted it, or it had no champion to beat."""
    return not card.rolled_back and (card.verdict is None or card.verdict.decision == "promote")


def newest_promoted(cards: Sequence[Card]) -> Card | None:
    """Return the card of the version that should be in service, None if none was promoted."""
    return next((card for card in reversed(cards) if is_promoted(card)), None)


def read_bundle(path: Path) -> Bundle:
    """Read card, digest and size of a bundle that training wrote.

    Raises:
        PermanentError: The file does not exist, or is not a bundle with a card.
    """
    try:
        with tarfile.open(path, "r:") as archive:  # uncompressed: the card is read without the weights
            member = archive.extractfile(CARD_PATH)
            card = decode_card(member.read() if member else b"", path)
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        size_bytes = path.stat().st_size
    except OSError as error:
        raise PermanentError(f"cannot read bundle {path}: {error.strerror or error}") from None
    except (KeyError, tarfile.TarError) as error:
        raise PermanentError(
            f"cannot read bundle {path}: {error}",
            hint=f"expected a tar with {CARD_PATH}",
        ) from None
    return Bundle(path, card, digest.hexdigest(), size_bytes, _parts(path, digest.hexdigest()))


def _parts(bundle: Path, sha256: str) -> str | None:
    """Return the digest of a bundle's lists of parts; None if they are missing, or of another bundle."""
    listed = bundle.with_name(bundle.name + SUFFIX)
    try:
        encoded = listed.read_bytes()
        list_parts = listed.with_name(listed.name + SUFFIX).read_bytes()
        found = decode_part_list(encoded).sha256, decode_part_list(list_parts).sha256
    except (OSError, PartsError):  # a bundle of an earlier release of Gleaner, or one that was copied alone
        return None
    if found != (sha256, hashlib.sha256(encoded).hexdigest()):
        return None
    return hashlib.sha256(list_parts).hexdigest()
