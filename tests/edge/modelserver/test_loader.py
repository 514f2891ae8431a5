"""Versions that come and go under a running server."""

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CLIENTS = 4


class _Load:
    """Clients that predict without a pause, and what they saw."""

    def __init__(self, predict: Any) -> None:
        self.predict = predict
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

    def __enter__(self) -> "_Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def seen(self, version: int) -> bool:
        return any(answer[1] == version for answer in self.answers)


def test_a_swap_fails_no_request(
    client: Any,
    serve: Any,
    saved: Any,
    place: Any,
    entry: Any,
    jpeg: bytes,
    eventually: Any,
    tmp_path: Path,
    record_property: Any,
) -> None:
    """Under four clients new versions take over, one after the other, and not one request fails."""
    place(saved["photo"], tmp_path, 1)
    serve(entry("swapped", tmp_path))
    predict = lambda: client.predict("swapped", {"image": [jpeg]}).model_spec.version.value
    waits_s = []
    with _Load(predict) as load:
        for version in range(2, 6):
            eventually(lambda: load.seen(version - 1), f"answers of version {version - 1}")  # noqa: B023 - called here
            place(saved["photo-b"], tmp_path, version)
            placed_s = time.monotonic()
            eventually(lambda: load.seen(version), f"answers of version {version}")  # noqa: B023 - called here
            waits_s.append(min(at_s for at_s, seen, _ in load.answers if seen == version) - placed_s)
    assert load.errors == []
    eventually(
        lambda: client.states("swapped") == {5: "AVAILABLE", 4: "END", 3: "END", 2: "END", 1: "END"},
        "the old versions unloaded",
    )
    record_property("requests", len(load.answers))
    record_property("seen_after_s", [round(wait_s, 2) for wait_s in waits_s])
    record_property("longest_call_s", round(max(seconds for _, _, seconds in load.answers), 3))


def test_a_version_is_unloaded_only_after_its_last_request(
    client: Any, serve: Any, saved: Any, place: Any, entry: Any, eventually: Any, tmp_path: Path
) -> None:
    """A request that began on the old version is answered by it, although the new one serves already."""
    place(saved["half+2"], tmp_path, 1)
    serve(entry("slow", tmp_path))
    request = client.request("slow", {"steps": np.array([150_000], np.int32)}, "slow")
    held = client.prediction.Predict.future(request, timeout=60)
    eventually(lambda: held.running(), "the long request under way")
    place(saved["half+3"], tmp_path, 2)
    eventually(lambda: client.half("slow", [2.0]) == [4.0], "answers of version 2")
    eventually(lambda: client.states("slow")[1] == "UNLOADING" or held.done(), "version 1 on its way out")
    assert not held.done()
    assert held.result().model_spec.version.value == 1
    eventually(lambda: client.states("slow") == {2: "AVAILABLE", 1: "END"}, "version 1 unloaded")


def test_removing_the_newest_goes_back_to_the_older(
    client: Any, serve: Any, saved: Any, place: Any, entry: Any, eventually: Any, tmp_path: Path
) -> None:
    """When the newest version's directory goes, the next one serves again."""
    place(saved["half+2"], tmp_path, 1)
    newest = place(saved["half+3"], tmp_path, "0002")
    serve(entry("back", tmp_path))
    assert client.half("back", [2.0]) == [4.0]
    shutil.rmtree(newest)
    eventually(lambda: client.half("back", [2.0]) == [3.0], "answers of version 1")
    eventually(lambda: client.states("back") == {2: "END", 1: "AVAILABLE"}, "version 2 unloaded")


def test_an_empty_base_path_unloads_and_a_missing_one_changes_nothing(
    client: Any, serve: Any, saved: Any, place: Any, entry: Any, eventually: Any, tmp_path: Path
) -> None:
    """Without versions under its path a model goes; while the path itself is away it goes on serving."""
    base_path, aside = tmp_path / "model", tmp_path / "aside"
    base_path.mkdir()
    place(saved["half+2"], base_path, 1)
    serve(entry("empty", base_path))
    base_path.rename(aside)
    threading.Event().wait(0.5)  # five looks: nothing may happen, so there is no condition to wait for
    assert client.states("empty") == {1: "AVAILABLE"}
    aside.rename(base_path)
    shutil.rmtree(base_path / "1")
    eventually(lambda: client.states("empty") == {1: "END"}, "the version unloaded")
    place(saved["half+3"], base_path, 1)
    eventually(lambda: client.states("empty") == {1: "AVAILABLE"}, "the version loaded again")
    assert client.half("empty", [2.0]) == [4.0]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("latest { num_versions: 2 }", {2, 3}), ("all { }", {1, 2, 3}), ("specific { versions: 1 }", {1})],
)
def test_the_policy_says_which_versions_serve(
    client: Any,
    serve: Any,
    saved: Any,
    place: Any,
    entry: Any,
    eventually: Any,
    tmp_path: Path,
    policy: str,
    expected: set[int],
) -> None:
    """All versions that the policy names serve at the same time, and the highest of them by default."""
    for version in (1, 2, 3):
        place(saved["half+2"], tmp_path, version)
    name = f"policy-{policy.split(maxsplit=1)[0]}"
    serve(entry(name, tmp_path, f"model_version_policy {{ {policy} }}"))
    eventually(lambda: client.states(name) == dict.fromkeys(expected, "AVAILABLE"), "all of them serving")
    assert client.predict(name, {"x": [1.0]}).model_spec.version.value == max(expected)
    for version in expected:
        assert client.half(name, [2.0], version=version) == [3.0]
    serve()
    eventually(lambda: set(client.states(name).values()) == {"END"}, "all of them unloaded")
