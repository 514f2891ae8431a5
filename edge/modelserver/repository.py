"""The models being served: which version a request means, and what the list of models is.

`Repository` holds the state and answers from any thread; `loader.Loader` is what changes it.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from edge.modelserver.config import ModelConfig
from edge.modelserver.servable import Servable
from edge.modelserver.status import Code, ServingError
from edge.modelserver.versions import State, Version, forgiven, surplus

ENDED_KEPT = 100
"""Ended versions of a model, and removed models, whose status is still told; older ones are forgotten."""

_ABANDONED_CHECK_S = 0.1


@dataclass(slots=True, eq=False)
class Model:
    """What is known of one model; read and written under `Repository.changed`.

    Args:
        config: None once the model is no longer in the list.
        names: the version directories at the last look, number to name.
        wanted: the versions to serve, by the last look and the policy.
        versions: every version known.
        errors: why the last attempt to load a version failed.
        servables: what is loaded.
        looked: the base path has been read since the last reload.
    """

    config: ModelConfig | None = None
    names: dict[int, str] = field(default_factory=dict)
    wanted: frozenset[int] = frozenset()
    versions: dict[int, Version] = field(default_factory=dict)
    errors: dict[int, ServingError] = field(default_factory=dict)
    servables: dict[int, Servable] = field(default_factory=dict)
    looked: bool = False

    @property
    def given_up(self) -> bool:
        """Whether all that it wants has failed for good."""
        failed = {number for number, version in self.versions.items() if version.failed}
        return self.looked and bool(self.wanted) and self.wanted <= failed

    @property
    def ended(self) -> bool:
        """Whether it is out of the list and nothing of it is left."""
        return self.config is None and all(v.state is State.END for v in self.versions.values())

    def want(self, wanted: frozenset[int]) -> None:
        """Set the versions to serve."""
        self.wanted = wanted
        self.versions = forgiven(self.versions, wanted)
        for number in surplus(self.versions, wanted, ENDED_KEPT):
            del self.versions[number]
            self.errors.pop(number, None)


class Repository:
    """The models being served.

    Attributes:
        changed: guards everything here, and is notified of each change.
        models: name to what is known of it.
        look_wanted: a reload asks the loader to look at the base paths at once.
        stopping: the server is going down.

    Args:
        allow_labels_for_unavailable: let a new version label name a version that does not serve yet.
    """

    def __init__(self, *, allow_labels_for_unavailable: bool = False) -> None:
        self.changed = threading.Condition()
        self.models: dict[str, Model] = {}
        self.look_wanted = False
        self.stopping = False
        self._allow_labels_for_unavailable = allow_labels_for_unavailable
        self._reloading = threading.Lock()
        self._labels: dict[str, Mapping[str, int]] = {}
        self._serving: dict[str, dict[int, Servable]] = {}  # replaced whole, never changed: read without lock

    @contextmanager
    def use(self, name: str, version: int | None = None, label: str | None = None) -> Iterator[Servable]:
        """Hold the version a request means: the one named or labelled, else the highest that serves.

        Raises:
            ServingError: INVALID_ARGUMENT for no name or an unknown label, NOT_FOUND where it does not serve.
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
            version = self.labelled(name, label)
        while True:
            serving = self._serving.get(name, {})
            found = serving.get(max(serving, default=0) if version is None else version)
            if found is None:
                meant = f"Latest({name})" if version is None else f"Specific({name}, {version})"
                raise ServingError(Code.NOT_FOUND, f"Servable not found for request: {meant}")
            if found.acquire():  # False: it was retired since it was found, and is no longer listed
                return found

    def labelled(self, name: str, label: str) -> int:
        """Find the version that a label stands for.

        Raises:
            ServingError: INVALID_ARGUMENT for a label that the model has not.
        """
        version = self._labels.get(name, {}).get(label)
        if version is None:
            raise ServingError(Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}")
        return version

    def status(self, name: str, version: int | None = None) -> list[tuple[int, State, ServingError | None]]:
        """Tell number, state and error of a model's versions, highest first.

        Args:
            name: the model.
            version: the only version asked for; None for all, ended ones included.

        Raises:
            ServingError: NOT_FOUND for what was never there.
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

    def reload(self, configs: Iterable[ModelConfig], *, abandoned: Callable[[], bool]) -> None:
        """Serve these models and no others; waits until each new one serves.

        Args:
            configs: the whole new list.
            abandoned: asked now and then; True ends the wait, but not the reload.

        Raises:
            ServingError: FAILED_PRECONDITION for a label on a version that does not serve (nothing is
                changed then), UNKNOWN for a new model that cannot be loaded, CANCELLED when abandoned.
        """
        given = {config.name: config for config in configs}
        while not self._reloading.acquire(timeout=_ABANDONED_CHECK_S):
            if abandoned():
                raise ServingError(Code.CANCELLED, "Abandoned while another reload was under way")
        try:
            with self.changed:
                for config in given.values():
                    self._check_labels(config)
                new = [name for name in given if name not in self.models or not self.models[name].config]
                self._replace_configs(given)
                self._await(new, abandoned)
        finally:
            self._reloading.release()

    def _check_labels(self, config: ModelConfig) -> None:
        serving, existing = self._serving.get(config.name, {}), self._labels.get(config.name, {})
        for label, version in config.labels.items():
            moved = existing.get(label, version) != version
            if version not in serving and (moved or not self._allow_labels_for_unavailable):
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
            model.looked = False
            if model.config is None:
                model.want(frozenset())
        for name in [name for name, model in self.models.items() if model.ended][:-ENDED_KEPT]:
            del self.models[name]
        self._serving = {name: serving for name, serving in self._serving.items() if name in self.models}
        self._labels = {name: config.labels for name, config in configs.items()}
        self.look_wanted = True
        self.changed.notify_all()

    def _await(self, names: list[str], abandoned: Callable[[], bool]) -> None:
        while waiting := [name for name in names if not self._serving.get(name)]:
            failed = [name for name in waiting if self.models[name].given_up]
            if len(failed) == len(waiting):
                raise ServingError(Code.UNKNOWN, self._unavailable_message(failed))
            if abandoned() or self.stopping:
                raise ServingError(Code.CANCELLED, f"Abandoned while waiting for {', '.join(waiting)}")
            self.changed.wait(_ABANDONED_CHECK_S)

    def _unavailable_message(self, names: list[str]) -> str:
        reasons = "".join(
            f"{{{{name: {name} version: {number}}} due to error: {error}}}, "
            for name in names
            for number, error in self.models[name].errors.items()
            if number in self.models[name].wanted
        )
        return f"{len(names)} model(s) did not become available: {{{reasons}}}"

    # What the loader does to it

    def set_version(
        self, name: str, number: int, version: Version, error: ServingError | None = None
    ) -> None:
        """Change what is known of a version, and with it what requests find."""
        with self.changed:
            model = self.models[name]
            model.versions[number] = version
            model.errors.pop(number, None)
            if error is not None:
                model.errors[number] = error
            serving = {n: s for n, s in model.servables.items() if model.versions[n].state is State.AVAILABLE}
            self._serving = {**self._serving, name: serving}
            self.changed.notify_all()

    def wake(self) -> None:
        """Make the loader look what there is to do."""
        with self.changed:
            self.changed.notify_all()

    def stop(self) -> None:
        """End the loader after the step it is at, and every wait in `reload`."""
        with self.changed:
            self.stopping = True
            self.changed.notify_all()
