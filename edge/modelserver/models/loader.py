"""Find, load and unload versions, all in one thread."""

import gc
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from edge.modelserver.config import ModelConfig
from edge.modelserver.models.repository import Model, Repository
from edge.modelserver.models.servable import Servable
from edge.modelserver.models.versions import (
    Action,
    State,
    Version,
    after_failure,
    aspired_versions,
    next_action,
    retry_due_s,
    start_attempt,
    version_directories,
)
from edge.modelserver.status import Code, ServingError

_LONGEST_WAIT_S = 3600.0  # the platform limits the length of a wait; waking up without work is harmless

log = structlog.get_logger()

Load = Callable[[str, int, Path], Servable]
"""Load and warm up a version: model name, version number, directory. Raises ServingError."""


@dataclass(frozen=True, slots=True)
class LoaderSchedule:
    """Intervals of scans and of load attempts.

    Args:
        poll_wait_s: seconds between scans of the base paths; 0 for one scan per reload, negative for none.
        max_num_load_retries: attempts to load a version after the first one.
        load_retry_interval_s: seconds between the attempts.
    """

    poll_wait_s: float = 1.0
    max_num_load_retries: int = 5
    load_retry_interval_s: float = 60.0


class Loader:
    """Bring the loaded versions in line with the base paths and the list of models.

    Args:
        repository: the state to change.
        load: loads a version.
        schedule: intervals of scans and of load attempts.
    """

    def __init__(self, repository: Repository, load: Load, schedule: LoaderSchedule) -> None:
        self._repository = repository
        self._load = load
        self._schedule = schedule
        self._next_scan_s: float | None = None
        self._last_warnings: dict[str, str] = {}

    def run(self) -> None:
        """Scan, load and unload until the repository is stopped. Call it in a dedicated thread."""
        repository = self._repository
        while not repository.stopping:
            self._scan_if_due()
            if not self._act():
                with repository.changed:
                    repository.changed.wait_for(self._due, timeout=self._idle_s())

    def close(self, timeout_s: float) -> bool:
        """Free the loaded versions, after `run` has ended.

        Returns:
            True if all requests ended within `timeout_s`; versions still in use are not freed.
        """
        deadline_s, all_idle = time.monotonic() + timeout_s, True
        for model in self._repository.models.values():
            for servable in model.servables.values():
                idle = threading.Event()
                servable.retire(idle.set)
                # One deadline for all: the versions share the shutdown time.
                if idle.wait(max(0.0, deadline_s - time.monotonic())):
                    servable.close()
                else:
                    all_idle = False
        return all_idle

    def _due(self) -> bool:
        repository = self._repository
        scan_due = self._next_scan_s is not None and self._next_scan_s <= time.monotonic()
        return repository.stopping or repository.scan_requested or scan_due or self._next() is not None

    def _idle_s(self) -> float | None:
        """Return the seconds until the next scan or load attempt; None if there is none."""
        due = [retry_due_s(model.versions, model.wanted) for model in self._repository.models.values()]
        times = [at_s for at_s in (*due, self._next_scan_s) if at_s is not None]
        return min(max(0.0, min(times) - time.monotonic()), _LONGEST_WAIT_S) if times else None

    def _scan_if_due(self) -> None:
        now_s, wait_s = time.monotonic(), self._schedule.poll_wait_s
        with self._repository.changed:
            reached = self._next_scan_s is not None and self._next_scan_s <= now_s
            due = self._repository.scan_requested or reached
            self._repository.scan_requested = False
            configs = {name: m.config for name, m in self._repository.models.items() if m.config}
        if not due or wait_s < 0:
            return
        self._next_scan_s = now_s + wait_s if wait_s > 0 else None
        # Without the lock: a slow or hung file system must not block requests for the status.
        found = {name: _list_versions(config.base_path) for name, config in configs.items()}
        with self._repository.changed:
            for name, names in found.items():
                model = self._repository.models.get(name)
                # A model that was reloaded during the scan has another config, and another scan is requested.
                if model is not None and model.config is configs[name]:
                    self._apply_scan(model, configs[name], names)
            self._repository.changed.notify_all()

    def _apply_scan(self, model: Model, config: ModelConfig, found: dict[int, str] | str) -> None:
        warning = found if isinstance(found, str) else "" if found else "no version directory"
        if warning and warning != self._last_warnings.get(config.name):  # once, not at every scan
            path = str(config.base_path)
            log.warning("modelserver.versions_missing", model=config.name, path=path, reason=warning)
        self._last_warnings[config.name] = warning
        # An unreadable path, such as a mount that is away for a moment, must not unload the model.
        if not isinstance(found, str):
            model.directories, model.scanned = found, True
            model.set_wanted(aspired_versions(found, config.policy))

    def _next(self) -> tuple[str, Action, int] | None:
        for name, model in self._repository.models.items():
            idle = frozenset(number for number, servable in model.servables.items() if servable.idle)
            action = next_action(model.versions, model.wanted, idle, time.monotonic())
            if action is not None:
                return name, *action
        return None

    def _act(self) -> bool:
        """Perform the next action; return False if there is none."""
        with self._repository.changed:
            due = self._next()
        if due is None:
            return False
        name, action, number = due
        match action:
            case Action.LOAD:
                self._load_version(name, number)
            case Action.ABANDON:
                self._repository.set_version(name, number, Version(State.END))
            case Action.UNLOAD:
                self._repository.set_version(name, number, Version(State.UNLOADING))
                self._repository.models[name].servables[number].retire(self._repository.wake)
            case Action.CLOSE:
                self._close_version(name, number)
        return True

    def _load_version(self, name: str, number: int) -> None:
        repository, started_s = self._repository, time.monotonic()
        with repository.changed:
            model = repository.models.get(name)
            if model is None or model.config is None:
                return  # a reload removed the model after the action was chosen
            path = model.config.base_path / model.directories[number]
            version = start_attempt(model.versions.get(number))
            repository.set_version(name, number, version, model.errors.get(number))
        try:
            # Without the lock: requests and reloads continue during a load, which takes seconds.
            servable = self._load(name, number, path)
        except ServingError as error:
            self._load_failed(name, number, version, error)
            return
        except OSError as error:  # removed meanwhile, or damaged: the other versions are unaffected
            unread = ServingError(Code.INTERNAL, f"{path} cannot be read: {error}")
            self._load_failed(name, number, version, unread)
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
        # The first and the last failure are warnings; those in between would repeat the first.
        write = log.warning if version.attempts == 1 or after.failed else log.debug
        write(
            "modelserver.load_failed",
            model=name,
            version=number,
            attempt=version.attempts,
            final=after.failed,
            error=str(error),
        )

    def _close_version(self, name: str, number: int) -> None:
        self._repository.models[name].servables.pop(number).close()
        gc.collect()  # graph and session are in reference cycles: without this their memory stays in use
        self._repository.set_version(name, number, Version(State.END))
        log.info("modelserver.unloaded", model=name, version=number)


def _list_versions(base_path: Path) -> dict[int, str] | str:
    """Return the version directories of a model, or the reason why the path cannot be read."""
    try:
        with os.scandir(base_path) as entries:
            return version_directories(entry.name for entry in entries if entry.is_dir())
    except OSError as error:
        return error.strerror or str(error)
