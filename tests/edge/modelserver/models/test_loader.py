"""Versions that appear and disappear while the server runs."""

import shutil
import threading
import time
from pathlib import Path
from typing import Any, Self

import pytest

from edge.modelserver.config import ModelConfig
from edge.modelserver.models.loader import Loader, LoaderSchedule
from edge.modelserver.models.repository import Repository
from edge.modelserver.models.servable import Servable
from edge.modelserver.models.warmup_records import RECORDS_FILE, warmup_logs
from edge.modelserver.status import ServingError

CLIENTS = 4


class _Load:
    """Clients that predict without a pause, and the answers they got."""

    def __init__(self, predict: Any, eventually: Any) -> None:
        self.predict = predict
        self.eventually = eventually
        self.answers: list[tuple[float, int, float]] = []
        self.errors: list[Exception] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                started_s = time.monotonic()
                version = self.predict()
                self.answers.append((time.monotonic(), version, time.monotonic() - started_s))
            except Exception as error:  # noqa: BLE001 - any failure is what the test counts
                self.errors.append(error)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def await_version(self, version: int) -> float:
        """Wait until a version answers, and return when it first did."""

        def first() -> float | None:
            return next((at_s for at_s, seen, _ in self.answers if seen == version), None)

        return float(self.eventually(first, f"answers of version {version}"))


def test_a_swap_fails_no_request(site: Any, jpeg: bytes, eventually: Any, record_property: Any) -> None:
    """Four new versions are swapped in under load of four clients, and no request fails."""
    site.place("photo", 1)
    site.serve_as("swapped")

    def predict() -> int:
        return int(site.client.predict("swapped", {"image": [jpeg]}).model_spec.version.value)

    waits_s = []
    with _Load(predict, eventually) as load:
        load.await_version(1)
        for version in range(2, 6):
            site.place("photo-b", version)
            placed_s = time.monotonic()
            waits_s.append(load.await_version(version) - placed_s)
    assert load.errors == []
    eventually(
        lambda: site.client.states("swapped") == {5: "AVAILABLE", 4: "END", 3: "END", 2: "END", 1: "END"},
        "the old versions unloaded",
    )
    record_property("requests", len(load.answers))
    record_property("seen_after_s", [round(wait_s, 2) for wait_s in waits_s])
    record_property("longest_call_s", round(max(seconds for _, _, seconds in load.answers), 3))


@pytest.mark.graph
def test_a_version_is_unloaded_only_after_its_last_request(
    site: Any, eventually: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A request that began on the old version is answered by it, while the new one is available already."""
    site.place("half+2", 1)
    site.serve_as("slow")
    folder = tmp_path_factory.mktemp("held")
    request = site.client.request("slow", {"path": [str(folder / "go-on")]}, "held")
    held = site.client.prediction.Predict.future(request, timeout=600)
    eventually((folder / "go-on.running").exists, "the request to run on version 1")
    site.place("half+3", 2)
    eventually(lambda: site.client.half("slow", [2.0]) == [4.0], "answers of version 2")
    eventually(lambda: site.client.states("slow")[1] == "UNLOADING", "version 1 retired")
    assert not held.done()
    (folder / "go-on").touch()
    assert held.result().model_spec.version.value == 1
    eventually(lambda: site.client.states("slow") == {2: "AVAILABLE", 1: "END"}, "version 1 unloaded")


def test_removing_the_newest_version_restores_the_older(site: Any, eventually: Any) -> None:
    """If the directory of the newest version is removed, the next one is served again."""
    site.place("half+2", 1)
    newest = site.place("half+3", "0002")
    site.serve_as("back")
    assert site.client.half("back", [2.0]) == [4.0]
    shutil.rmtree(newest)
    eventually(lambda: site.client.half("back", [2.0]) == [3.0], "answers of version 1")
    eventually(lambda: site.client.states("back") == {2: "END", 1: "AVAILABLE"}, "version 2 unloaded")


@pytest.mark.own_process
def test_an_empty_base_path_unloads_and_a_missing_one_changes_nothing(
    site: Any, server: Any, eventually: Any
) -> None:
    """Without version directories a model is unloaded; while the base path is missing it stays."""
    site.place("half+2", 1)
    site.serve_as("empty")
    aside = site.path.rename(site.path.with_name("aside"))
    server.wait_for(f'"model": "empty", "path": "{site.path}", "reason": "No such file or directory"')
    assert site.client.states("empty") == {1: "AVAILABLE"}
    aside.rename(site.path)
    shutil.rmtree(site.path / "1")
    eventually(lambda: site.client.states("empty") == {1: "END"}, "the version unloaded")
    site.place("half+3", 1)
    eventually(lambda: site.client.states("empty") == {1: "AVAILABLE"}, "the version loaded again")
    assert site.client.half("empty", [2.0]) == [4.0]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("latest { num_versions: 2 }", {2, 3}), ("all { }", {1, 2, 3}), ("specific { versions: 1 }", {1})],
)
def test_the_policy_selects_the_versions(site: Any, eventually: Any, policy: str, expected: set[int]) -> None:
    """All versions of the policy are available together; requests use the highest by default."""
    for version in (1, 2, 3):
        site.place("half+2", version)
    name = f"policy-{policy.split(maxsplit=1)[0]}"
    site.serve_as(name, f"model_version_policy {{ {policy} }}")
    eventually(
        lambda: site.client.states(name) == dict.fromkeys(expected, "AVAILABLE"), "all of them serving"
    )
    assert site.client.predict(name, {"x": [1.0]}).model_spec.version.value == max(expected)
    for version in expected:
        assert site.client.half(name, [2.0], version=version) == [3.0]
    site.serve()
    eventually(lambda: set(site.client.states(name).values()) == {"END"}, "all of them unloaded")


def test_a_file_that_cannot_be_read_fails_its_version_alone(tmp_path: Path) -> None:
    """A version that is removed or damaged while it is loaded gets the reason; the server continues."""
    (tmp_path / "1" / RECORDS_FILE).mkdir(parents=True)  # a folder, where records are read from

    def load(_name: str, _version: int, path: Path) -> Servable:
        raise AssertionError(list(warmup_logs(path)))

    repository = Repository()
    loader = Loader(repository, load, LoaderSchedule(max_num_load_retries=0))
    thread = threading.Thread(target=loader.run)
    thread.start()
    try:
        with pytest.raises(ServingError, match=r"version: 1.* cannot be read: .*Is a directory"):
            repository.reload([ModelConfig("pets", tmp_path)], is_cancelled=lambda: not thread.is_alive())
        assert thread.is_alive()
    finally:
        repository.stop()
        thread.join()
