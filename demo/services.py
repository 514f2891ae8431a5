"""Broker, model server, edge and collector of a run, each started as a `gleaner` command."""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

from bus.broker.process import free_port, is_listening
from demo.processes import Processes
from schemas.errors import PermanentError

NODE = "edge-1"
_BROKER_S = 240.0
"""Timeout in seconds for the broker; a mosquitto that is not installed is downloaded first."""
# Low thresholds and no novelty limit: a model of ten labels is rarely confident, and all photos are novel.
# Few audits, so that the 20 labels go to training. High caps, because a replay is faster than a camera.
EDGE_CONFIG = """
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
LABELS_PER_ROUND = 20
"""Labels by people that start a training while the demonstration stays."""
# Short stages, and photos of few cameras; nobody waits an hour to see a version arrive.
_TRAINER_CONFIG = f"""
every_s = 5
teachers = []
also = []
[triggers]
labels = {LABELS_PER_ROUND}
samples = 1000000
cool_down_s = 0
[release]
groups = [["{NODE}"]]
shadow_photos = 10
canary_shares = [0.67]
canary_photos = 5
stage_s = 5
bake_time_s = 5
"""


@dataclass(frozen=True, slots=True)
class Services:
    """Addresses and folders of the services.

    Args:
        work: Temporary folder of the run.
        port: TCP port of the broker.
        serving_port: TCP port of the model server.
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
        """Folder of the trained versions."""
        return self.work / "models"

    @property
    def features(self) -> Path:
        """Cache of embeddings."""
        return self.work / "features"

    async def start_broker(self, processes: Processes) -> None:
        """Start the broker and wait until it listens.

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
                raise PermanentError(f"the broker did not listen on port {self.port} in {_BROKER_S:g} s")
            await asyncio.sleep(0.05)

    async def start_console(self, processes: Processes) -> str:
        """Start the console and return the address to open in a browser.

        Raises:
            PermanentError: It does not start.
        """
        await processes.start(
            "console", "console", "--broker", self.broker, "--dataset", self.dataset,
            "--models", str(self.models), "--state-dir", str(self.work / "console"),
            "--cache", str(self.features),
            "--listen", "127.0.0.1:0",
        )  # fmt: skip
        deadline = time.monotonic() + _BROKER_S
        while not self._address_file.exists():
            processes.check()
            if time.monotonic() > deadline:
                raise PermanentError(f"the console was not there in {_BROKER_S:g} s")
            await asyncio.sleep(0.05)
        return self.console_address()

    async def start_trainer(self, processes: Processes, backbone: str) -> None:
        """Start the trainer, which makes versions from what people label from now on."""
        config = self.work / "trainer.toml"
        config.write_text(_TRAINER_CONFIG, encoding="utf-8")
        await processes.start(
            "trainer", "cloud", "watch", "--config", str(config), "--broker", self.broker,
            "--dataset", self.dataset, "--models", str(self.models), "--cache", str(self.features),
            "--backbone", backbone,
        )  # fmt: skip

    def console_address(self) -> str:
        """Return the address that opens the console in a browser, once; the next one is another."""
        return self._address_file.read_text(encoding="utf-8").strip()

    @property
    def _address_file(self) -> Path:
        return self.work / "console" / "address"

    async def start_others(self, processes: Processes) -> None:
        """Start model server, edge and collector; each retries until its peers are there."""
        serving = self.work / "serving"
        (serving / "pets").mkdir(parents=True)
        config = self.work / "edge.toml"
        config.write_text(EDGE_CONFIG, encoding="utf-8")
        await processes.start(
            "modelserver", "modelserver", "--model_name=pets", f"--model_base_path={serving}/pets",
            # Polls often, so that a released version is loaded without a noticeable wait.
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
