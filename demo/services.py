"""Broker, model server, edge and collector of a run: each a `gleaner` command as anybody would start it."""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

from bus.broker.process import free_port, is_listening
from demo.processes import Processes
from schemas.errors import PermanentError

NODE = "edge-1"
_BROKER_S = 240.0
"""For the broker to listen; without an installed mosquitto it is fetched first."""
# To a model of ten labels all is new, and it is seldom sure; few audits leave the 20 labels to the training.
# A replay is faster than any camera.
_EDGE_CONFIG = """
[harvest]
auto_confidence = 0.6
hard_entropy = 0.97
hard_novelty = 1000.0
audit_share = 0.005
[harvest.caps]
per_minute = 5000
bytes_per_minute = 500000000
bytes_per_hour = 500000000
"""


@dataclass(frozen=True, slots=True)
class Services:
    """Where they are and what they share.

    Args:
        work: Folder of the run.
    """

    work: Path
    port: int = field(default_factory=free_port)
    serving_port: int = field(default_factory=free_port)

    @property
    def broker(self) -> str:
        """Host and port of the broker."""
        return f"127.0.0.1:{self.port}"

    @property
    def dataset(self) -> str:
        """The Lance table."""
        return str(self.work / "dataset.lance")

    @property
    def models(self) -> Path:
        """Where trained versions are written."""
        return self.work / "models"

    @property
    def features(self) -> Path:
        """What trainings keep for each other."""
        return self.work / "features"

    async def start_broker(self, processes: Processes) -> None:
        """Start it and wait until it listens.

        Raises:
            PermanentError: It does not start.
        """
        await processes.start(
            "broker", "broker", "--port", str(self.port), "--dir", str(self.work / "broker")
        )
        deadline = time.monotonic() + _BROKER_S
        while not is_listening(self.port):
            processes.check()
            if time.monotonic() > deadline:
                raise PermanentError("broker", expected=f"to listen within {_BROKER_S:g} s", got="nothing")
            await asyncio.sleep(0.05)

    async def start_others(self, processes: Processes) -> None:
        """Start what speaks through the broker; each of them waits until it has what it needs."""
        serving = self.work / "serving"
        (serving / "pets").mkdir(parents=True)
        config = self.work / "edge.toml"
        config.write_text(_EDGE_CONFIG, encoding="utf-8")
        await processes.start(
            "modelserver", "modelserver", "--model_name=pets", f"--model_base_path={serving}/pets",
            f"--port={self.serving_port}", "--file_system_poll_wait_seconds=0.5",
        )  # fmt: skip
        await processes.start(
            "edge", "edge", "--config", str(config), "--node", NODE, "--broker", self.broker,
            "--serving", f"127.0.0.1:{self.serving_port}", "--models-dir", str(serving),
            "--state-dir", str(self.work / "edge"),
        )  # fmt: skip
        await processes.start(
            "collector", "cloud", "collect", "--broker", self.broker, "--dataset", self.dataset
        )
