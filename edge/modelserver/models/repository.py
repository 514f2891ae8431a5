"""State of the served models: which versions are available, and which one a request selects.

Any thread may read it; `loader.Loader` changes it.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from edge.modelserver.config import ModelConfig
from edge.modelserver.models.servable import Servable
from edge.modelserver.models.versions import State, Version, clear_failures, excess_ended
from edge.modelserver.status import Code, ServingError

MAX_ENDED = 100
"""Ended versions of a model, and removed models, that keep a status; older ones are dropped."""

_CANCELLED_CHECK_S = 0.1  # gRPC has no event for a cancelled call that a condition could wait for


@dataclass(slots=True, eq=False)
class Model:
    """State of one model; read and written under `Repository.changed`.

    Args:
        config: None once the model is not in the list any more.
        directories: version directories at the last scan, number to name.
        wanted: versions to serve, from the last scan and the policy.
        versions: all known versions.
        errors: error of the last failed attempt to load a version.
        servables: loaded versions.
        scanned: True once the base path has been read since the last reload.
    """

    config: ModelConfig | None = None
    directories: dict[int, str] = field(default_factory=dict)
    wanted: frozenset[int] = frozenset()
    versions: dict[int, Version] = field(default_factory=dict)
    errors: dict[int, ServingError] = field(default_factory=dict)
    servables: dict[int, Servable] = field(default_factory=dict)
    scanned: bool = False

    @property
    def all_failed(self) -> bool:
        """True if every wanted version has failed and is not retried."""
        failed = {number for number, version in self.versions.items() if version.failed}
        return self.scanned and bool(self.wanted) and self.wanted <= failed

    @property
    def ended(self) -> bool:
        """True if the model is not in the list and all its versions have ended."""
        return self.config is None and all(v.state is State.END for v in self.versions.values())

    def set_wanted(self, wanted: frozenset[int]) -> None:
        """Set the versions to serve."""
        self.wanted = wanted
        self.versions = clear_failures(self.versions, wanted)
        for number in excess_ended(self.versions, wanted, MAX_ENDED):
            del self.versions[number]
            self.errors.pop(number, None)


class Repository:
    """The served models.

    Attributes:
        changed: lock of all attributes; notified of each change.
        models: state by model name.
        scan_requested: set by a reload: the loader scans the base paths at once.
        stopping: the server is shutting down.

    Args:
        allow_labels_for_unavailable: allow a new label on a version that is not available yet.
    """

    def __init__(self, *, allow_labels_for_unavailable: bool = False) -> None:
        self.changed = threading.Condition()
        self.models: dict[str, Model] = {}
        self.scan_requested = False
        self.stopping = False
        self._allow_labels_for_unavailable = allow_labels_for_unavailable
        self._reloading = threading.Lock()
        self._labels: dict[str, Mapping[str, int]] = {}
        # Replaced as a whole, never changed in place: requests read it without the lock.
        self._available: dict[str, dict[int, Servable]] = {}

    def is_served(self, name: str) -> bool:
        """Return whether a model of this name has an available version."""
        return bool(self._available.get(name))

    @contextmanager
    def use(self, name: str, version: int | None = None, label: str | None = None) -> Iterator[Servable]:
        """Hold the version that a request selects by number or label; by default the highest available one.

        Raises:
            ServingError: INVALID_ARGUMENT for an empty name or unknown label, NOT_FOUND if not available.
        """
        servable = self._acquire(name, version, label)
        try:
            yield servable
        finally:
            servable.release()

    def _acquire(self, name: str, version: int | None, label: str | None) -> Servable:
        if not name:
            raise ServingError(Code.INVALID_ARGUMENT, "ModelSpec has no name specified.")
        if label is not None:
            version = self.version_of_label(name, label)
        while True:
            available = self._available.get(name, {})
            servable = available.get(max(available, default=0) if version is None else version)
            if servable is None:
                requested = f"Latest({name})" if version is None else f"Specific({name}, {version})"
                raise ServingError(Code.NOT_FOUND, f"Servable not found for request: {requested}")
            # False if it was retired after the look-up. It left `_available` before that, so this ends.
            if servable.acquire():
                return servable

    def version_of_label(self, name: str, label: str) -> int:
        """Return the version with this label.

        Raises:
            ServingError: INVALID_ARGUMENT if the model has no such label.
        """
        version = self._labels.get(name, {}).get(label)
        if version is None:
            raise ServingError(Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}")
        return version

    def status(self, name: str, version: int | None = None) -> list[tuple[int, State, ServingError | None]]:
        """Return number, state and error of a model's versions, highest first.

        Args:
            name: the model.
            version: a single version; None for all, including ended ones.

        Raises:
            ServingError: NOT_FOUND for an unknown model or version.
        """
        with self.changed:
            model = self.models.get(name)
            versions = dict(model.versions) if model else {}
            errors = dict(model.errors) if model else {}
        if version is None and not versions:
            raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        if version is not None and version not in versions:
            raise ServingError(Code.NOT_FOUND, f"Could not find version {version} of model {name}")
        numbers = sorted(versions, reverse=True) if version is None else [version]
        return [(number, versions[number].state, errors.get(number)) for number in numbers]

    def reload(self, configs: Iterable[ModelConfig], *, is_cancelled: Callable[[], bool]) -> None:
        """Replace the list of models and wait until each new model has an available version.

        Args:
            configs: the complete new list.
            is_cancelled: polled during the wait; True ends the wait, not the reload.

        Raises:
            ServingError: FAILED_PRECONDITION for a label on a version that is not available (the list is
                unchanged then), UNKNOWN if a new model cannot be loaded, CANCELLED if `is_cancelled`.
        """
        listed = {config.name: config for config in configs}
        # One reload at a time: a second one would replace the list that the first is waiting for.
        while not self._reloading.acquire(timeout=_CANCELLED_CHECK_S):
            if is_cancelled():
                raise ServingError(Code.CANCELLED, "Cancelled while another reload was in progress")
        try:
            with self.changed:
                for config in listed.values():
                    self._check_labels(config)
                new = [name for name in listed if name not in self.models or not self.models[name].config]
                self._replace_configs(listed)
                self._wait_available(new, is_cancelled)
        finally:
            self._reloading.release()

    def _check_labels(self, config: ModelConfig) -> None:
        available, existing = self._available.get(config.name, {}), self._labels.get(config.name, {})
        for label, version in config.labels.items():
            # Also with the flag, a label in use must not move to a version that cannot answer.
            moved = existing.get(label, version) != version
            if version not in available and (moved or not self._allow_labels_for_unavailable):
                raise ServingError(
                    Code.FAILED_PRECONDITION,
                    f"Request to assign label to version {version} of model {config.name}, which is not "
                    "currently available for inference",
                )

    def _replace_configs(self, configs: Mapping[str, ModelConfig]) -> None:
        for name in configs.keys() - self.models.keys():
            self.models[name] = Model()
        for name, model in self.models.items():
            model.config = configs.get(name)
            model.scanned = False
            if model.config is None:
                model.set_wanted(frozenset())
        # Bounded, because a client may reload any number of names.
        for name in [name for name, model in self.models.items() if model.ended][:-MAX_ENDED]:
            del self.models[name]
        self._available = {name: found for name, found in self._available.items() if name in self.models}
        self._labels = {name: config.labels for name, config in configs.items()}
        self.scan_requested = True
        self.changed.notify_all()

    def _wait_available(self, names: list[str], is_cancelled: Callable[[], bool]) -> None:
        while waiting := [name for name in names if not self._available.get(name)]:
            failed = [name for name in waiting if self.models[name].all_failed]
            # Not at the first failure: the message names every model that failed.
            if len(failed) == len(waiting):
                raise ServingError(Code.UNKNOWN, self._unavailable_message(failed))
            if is_cancelled() or self.stopping:
                raise ServingError(Code.CANCELLED, f"Cancelled while waiting for {', '.join(waiting)}")
            self.changed.wait(_CANCELLED_CHECK_S)

    def _unavailable_message(self, names: list[str]) -> str:
        reasons = "".join(
            f"{{{{name: {name} version: {number}}} due to error: {error}}}, "
            for name in names
            for number, error in self.models[name].errors.items()
            if number in self.models[name].wanted
        )
        return f"{len(names)} model(s) did not become available: {{{reasons}}}"

    # Called by the loader

    def set_version(
        self, name: str, number: int, version: Version, error: ServingError | None = None
    ) -> None:
        """Set the state of a version, and with it whether requests find it."""
        with self.changed:
            model = self.models[name]
            model.versions[number] = version
            model.errors.pop(number, None)
            if error is not None:
                model.errors[number] = error
            found = {n: s for n, s in model.servables.items() if model.versions[n].state is State.AVAILABLE}
            self._available = {**self._available, name: found}
            self.changed.notify_all()

    def wake(self) -> None:
        """Make the loader check for its next action."""
        with self.changed:
            self.changed.notify_all()

    def stop(self) -> None:
        """End the loader after its current action, and every wait in `reload`."""
        with self.changed:
            self.stopping = True
            self.changed.notify_all()
