"""The one thread that looks for versions, loads them and unloads them."""

import gc
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from edge.modelserver.config import ModelConfig
from edge.modelserver.repository import Model, Repository
from edge.modelserver.servable import Servable
from edge.modelserver.status import ServingError
from edge.modelserver.versions import (
    Act,
    State,
    Version,
    after_failure,
    aspired,
    begun,
    next_act,
    numbered,
    retry_due_s,
)

_LONGEST_WAIT_S = 3600.0  # the platform cannot wait for ever long; looking once too often costs nothing

log = structlog.get_logger()

Load = Callable[[str, int, Path], Servable]
"""Loads, and warms up, version `number` of a model from its directory; raises ServingError."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to look and to try again.

    Args:
        poll_wait_s: seconds between looks at the base paths; 0 for one look per reload, negative for none.
        max_num_load_retries: attempts to load a version after the first one.
        load_retry_interval_s: seconds between the attempts.
    """

    poll_wait_s: float = 1.0
    max_num_load_retries: int = 5
    load_retry_interval_s: float = 60.0


class Loader:
    """Keeps what is loaded in line with what is on disk and in the list of models.

    Args:
        repository: the state to change.
        load: how to load a version.
        schedule: when to look and to try again.
    """

    def __init__(self, repository: Repository, load: Load, schedule: Schedule) -> None:
        self._repository = repository
        self._load = load
        self._schedule = schedule
        self._look_at_s: float | None = None
        self._complaints: dict[str, str] = {}

    def run(self) -> None:
        """Look, load and unload until the repository is stopped. For one thread of its own."""
        repository = self._repository
        while not repository.stopping:
            self._look_if_due()
            if not self._act():
                with repository.changed:
                    repository.changed.wait_for(self._due, timeout=self._idle_s())

    def close(self, timeout_s: float) -> bool:
        """Free what is loaded, after `run` has ended.

        Returns:
            Whether all requests left within `timeout_s`; what they hold is not freed otherwise.
        """
        deadline_s, all_left = time.monotonic() + timeout_s, True
        for model in self._repository.models.values():
            for servable in model.servables.values():
                left = threading.Event()
                servable.retire(left.set)
                if left.wait(max(0.0, deadline_s - time.monotonic())):
                    servable.close()
                else:
                    all_left = False
        return all_left

    def _due(self) -> bool:
        repository = self._repository
        looks = self._look_at_s is not None and self._look_at_s <= time.monotonic()
        return repository.stopping or repository.look_wanted or looks or self._next() is not None

    def _idle_s(self) -> float | None:
        """Say how long nothing will be due, as things stand."""
        due = [retry_due_s(model.versions, model.wanted) for model in self._repository.models.values()]
        times = [at_s for at_s in (*due, self._look_at_s) if at_s is not None]
        return min(max(0.0, min(times) - time.monotonic()), _LONGEST_WAIT_S) if times else None

    def _look_if_due(self) -> None:
        now_s, wait_s = time.monotonic(), self._schedule.poll_wait_s
        with self._repository.changed:
            due = self._repository.look_wanted or (self._look_at_s is not None and self._look_at_s <= now_s)
            self._repository.look_wanted = False
            configs = {name: m.config for name, m in self._repository.models.items() if m.config}
        if not due or wait_s < 0:
            return
        self._look_at_s = now_s + wait_s if wait_s > 0 else None
        found = {name: _directories(config.base_path) for name, config in configs.items()}
        with self._repository.changed:
            for name, names in found.items():
                model = self._repository.models.get(name)
                if (
                    model is not None and model.config is configs[name]
                ):  # else reloaded meanwhile: looks again
                    self._take_look(model, configs[name], names)
            self._repository.changed.notify_all()

    def _take_look(self, model: Model, config: ModelConfig, names: dict[int, str] | str) -> None:
        complaint = names if isinstance(names, str) else "" if names else "it holds no version directory"
        if complaint and complaint != self._complaints.get(config.name):
            path = str(config.base_path)
            log.warning("modelserver.no_versions", model=config.name, path=path, reason=complaint)
        self._complaints[config.name] = complaint
        if not isinstance(names, str):  # a path that cannot be read may come back: it changes nothing
            model.names, model.looked = names, True
            model.want(aspired(names, config.policy))

    def _next(self) -> tuple[str, Act, int] | None:
        for name, model in self._repository.models.items():
            idle = frozenset(number for number, servable in model.servables.items() if servable.idle)
            step = next_act(model.versions, model.wanted, idle, time.monotonic())
            if step is not None:
                return name, *step
        return None

    def _act(self) -> bool:
        """Take the next step. False where there is none."""
        with self._repository.changed:
            step = self._next()
        if step is None:
            return False
        name, act, number = step
        match act:
            case Act.LOAD:
                self._load_version(name, number)
            case Act.GIVE_UP:
                self._repository.set_version(name, number, Version(State.END))
            case Act.UNLOAD:
                self._repository.set_version(name, number, Version(State.UNLOADING))
                self._repository.models[name].servables[number].retire(self._repository.wake)
            case Act.CLOSE:
                self._close_version(name, number)
        return True

    def _load_version(self, name: str, number: int) -> None:
        repository, started_s = self._repository, time.monotonic()
        with repository.changed:
            model = repository.models.get(name)
            if model is None or model.config is None:
                return  # it left the list just now
            path = model.config.base_path / model.names[number]
            version = begun(model.versions.get(number))
            repository.set_version(name, number, version, model.errors.get(number))
        try:
            servable = self._load(name, number, path)
        except ServingError as error:
            self._load_failed(name, number, version, error)
            return
        with repository.changed:
            model.servables[number] = servable
            repository.set_version(name, number, replace(version, state=State.AVAILABLE))
        seconds = round(time.monotonic() - started_s, 3)
        log.info("modelserver.loaded", model=name, version=number, path=str(path), seconds=seconds)

    def _load_failed(self, name: str, number: int, version: Version, error: ServingError) -> None:
        after = after_failure(
            version,
            max_retries=self._schedule.max_num_load_retries,
            interval_s=self._schedule.load_retry_interval_s,
            now_s=time.monotonic(),
        )
        self._repository.set_version(name, number, after, error)
        tell = log.warning if version.attempts == 1 or after.failed else log.debug
        tell(
            "modelserver.load_failed",
            model=name,
            version=number,
            attempt=version.attempts,
            final=after.failed,
            error=str(error),
        )

    def _close_version(self, name: str, number: int) -> None:
        self._repository.models[name].servables.pop(number).close()
        gc.collect()  # graph and session are cycles: without this they stay until chance frees them
        self._repository.set_version(name, number, Version(State.END))
        log.info("modelserver.unloaded", model=name, version=number)


def _directories(base_path: Path) -> dict[int, str] | str:
    """List the version directories of a model, or say why it cannot be done."""
    try:
        with os.scandir(base_path) as entries:
            return numbered(entry.name for entry in entries if entry.is_dir())
    except OSError as error:
        return error.strerror or str(error)
