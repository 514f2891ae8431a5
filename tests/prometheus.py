"""Debian's Prometheus and promtool: installed, or unpacked into the cache; a test without them is skipped."""

import json
import os
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bus.broker.debian_package import PackageError, unpack
from bus.broker.process import free_port
from bus.files.cache_folder import default_cache
from bus.files.file_lock import exclusive_lock
from tests.conftest import DEADLINE_S


def program(name: str) -> str:
    """Return the path of `prometheus` or `promtool`; without one the test is skipped."""
    if (installed := shutil.which(name)) is not None:
        return installed
    folder = default_cache() / "prometheus"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder.with_suffix(".lock"), timeout_s=300):  # test processes run in parallel
        if not (folder / "usr/bin" / name).exists():
            try:
                unpack(("prometheus",), folder)
            except PackageError as error:
                pytest.skip(f"no Prometheus: {error}")
    return str(folder / "usr/bin" / name)


class Prometheus:
    """A running Prometheus."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def api(self, path: str, **query: str) -> Any:
        """Return the data of an answer of its HTTP API; None while it does not answer yet."""
        url = f"{self._url}/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 503:  # it has not loaded its storage yet
                    raise AssertionError(f"{url}: {error.read().decode()}") from None
                return None
        except urllib.error.URLError:
            return None

    def answers(self, query: str) -> list[Any]:
        """Return the series that a query gives now."""
        found = self.api("query", query=query)
        return found["result"] if found else []


@contextmanager
def prometheus(config: Path, data: Path) -> Iterator[Prometheus]:
    """Run Prometheus on a configuration for the length of a block, entered before it answers."""
    port = free_port()
    words = [
        program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={data}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with (data.with_suffix(".log")).open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=dict(os.environ, GOMAXPROCS="1"))
    try:
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait(DEADLINE_S)
