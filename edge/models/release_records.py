"""The releases installed on this node: class names, heads of groups, digests and load counts, cached."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import structlog

from bus.files.atomic_file import write_atomic
from edge.models import version_dirs
from edge.models.bundle import read_class_names
from schemas.codec import content_id
from schemas.errors import DECODE_ERRORS
from schemas.groups.heads import GroupHeads, GroupHeadsError, read_heads
from schemas.messages import Release

log = structlog.get_logger()


class ReleaseRecords:
    """One record per version of a model. Blocking; only the first read of a version reaches the disk.

    Args:
        folder: For the records.
        model: Name of the model.
        base: Its version directories, for heads of groups, and for class names of versions without a record;
            None if others place the models.
    """

    def __init__(self, folder: Path, model: str, base: Path | None) -> None:
        self._folder = folder
        self._model = model
        self._base = base
        self._recorded: dict[int, Release | None] = {}
        self._described: dict[int, Release] = {}
        self._asset_names: dict[int, tuple[str, ...]] = {}
        self._heads: dict[int, GroupHeads | None] = {}

    def record(self, release: Release) -> None:
        """Record a release durably under its version number.

        Raises:
            OSError: The disk refused; the previous record is intact.
        """
        encoded = msgspec.json.encode(release)
        write_atomic(self._path(release.version), encoded + b"\n" + content_id(encoded).encode())
        self._recorded[release.version] = release
        self._described[release.version] = release

    def recorded(self, version: int) -> Release | None:
        """Return the release recorded for a version, None without one."""
        if version not in self._recorded:
            self._recorded[version] = _read(self._path(version))
        return self._recorded[version]

    def all(self) -> Iterator[Release]:
        """Yield every readable record."""
        return filter(None, map(_read, self._folder.glob("*.json")))

    def describe(self, release: Release) -> None:
        """Use the class names and temperature of a release that is not recorded yet."""
        self._described[release.version] = release

    def forget(self, version: int) -> None:
        """Forget the description of a version that was removed; its number may be used again."""
        self._described.pop(version, None)
        self._heads.pop(version, None)

    def class_names(self, version: int) -> tuple[str, ...] | None:
        """Return the classes of a version in the order of its outputs, from its release or its assets."""
        if (release := self._description(version)) is not None:
            return tuple(release.classes)
        if version not in self._asset_names and self._base is not None:
            names = read_class_names(self._base / str(version))
            if names is None:  # not cached: its release may still come
                return None
            self._asset_names[version] = names
        return self._asset_names.get(version)

    def temperature(self, version: int) -> float | None:
        """Return what divides the logits inside a version; None without a release of it."""
        release = self._description(version)
        return None if release is None else release.temperature

    def heads(self, version: int, *, again: bool = False) -> GroupHeads | None:
        """Return the heads of groups that a version has; None if its shared head answers every photo.

        Args:
            version: Of the model.
            again: Read them again: another bundle may have had this number.
        """
        if again or version not in self._heads:
            found = self._find(version)
            if found is None:  # not cached: it may be moving from one folder to another
                return None
            self._heads[version] = _read_heads(found)
        return self._heads[version]

    def _find(self, version: int) -> Path | None:
        """Return the directory of a version, which is in the canary folder alone during its canary."""
        if self._base is None:
            return None
        folders = self._base, version_dirs.canary_folder(self._base)
        return next((one for one in (folder / str(version) for folder in folders) if one.is_dir()), None)

    def count_load(self, release: Release) -> None:
        """Count one more load of a challenger, durably.

        Raises:
            OSError: The disk refused; the count is unchanged.
        """
        counted = release.released_at_ms, self.loads(release) + 1
        write_atomic(self._loads_path(release.version), msgspec.json.encode(counted))

    def loads(self, release: Release) -> int:
        """Return how often this very release was loaded as a challenger."""
        try:
            counted = self._loads_path(release.version).read_bytes()
            released_at_ms, loads = msgspec.json.decode(counted, type=tuple[int, int])
        except (OSError, *DECODE_ERRORS):
            return 0
        return loads if released_at_ms == release.released_at_ms else 0

    def forget_loads(self, version: int) -> None:
        """Reset the count of loads."""
        self._loads_path(version).unlink(missing_ok=True)

    def _description(self, version: int) -> Release | None:
        # An activated release before its record, which may be of an earlier bundle of this number.
        return self._described.get(version) or self.recorded(version)

    def _path(self, version: int) -> Path:
        return self._folder / f"{self._model}-{version}.json"

    def _loads_path(self, version: int) -> Path:
        return self._path(version).with_suffix(".loads")


def _read(path: Path) -> Release | None:
    """Return a recorded release; None if it is missing, or damaged: then it is recorded again."""
    try:
        # Records of earlier versions have no second line, and are believed.
        encoded, _, checksum = path.read_bytes().partition(b"\n")
        if checksum and content_id(encoded).encode() != checksum:
            _report(path, "it does not have its checksum")
            return None
        return msgspec.json.decode(encoded, type=Release)
    except FileNotFoundError:
        return None
    except (OSError, *DECODE_ERRORS) as error:
        _report(path, str(error))
        return None


def _read_heads(directory: Path) -> GroupHeads | None:
    try:
        return read_heads(directory)
    except (OSError, GroupHeadsError) as error:  # a bundle with such a file is not installed
        log.error("model.heads_damaged", path=str(directory), reason=str(error))  # noqa: TRY400
        return None


def _report(path: Path, reason: str) -> None:
    log.error("release.record_damaged", path=str(path), reason=reason)
