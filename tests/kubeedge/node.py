"""An edge node of the laboratory: broker and edgecore."""

import json
from pathlib import Path

from bus.broker.locate import find_mosquitto
from bus.broker.mosquitto_conf import configuration
from bus.broker.process import free_port
from tests.kubeedge import settings
from tests.kubeedge.programs import Programs
from tests.kubeedge.service import Service, write_private
from tests.kubeedge.settings import BrokerConnection, Ports


class EdgeNode:
    """An edge node: a mosquitto, and an edgecore that connects it to cloudcore.

    Args:
        name: Name of the node.
        folder: Folder of the laboratory.
        programs: The built programs.
    """

    def __init__(self, name: str, folder: Path, programs: Programs) -> None:
        self.name = name
        self.port = free_port()
        self.link: BrokerConnection | None = None
        self._folder = folder / name
        self._broker_config = self._folder / "mosquitto.conf"
        self._config = self._folder / "edgecore.yaml"
        mosquitto = find_mosquitto()
        command = [str(mosquitto.binary), "-c", str(self._broker_config)]
        self.broker = Service(f"{name}-mosquitto", folder, command, mosquitto.environment())
        self.edgecore = Service(
            f"{name}-edgecore", folder, [str(programs.edgecore), f"--config={self._config}"]
        )

    def lay_out(self) -> None:
        """Create the node's folder with the configuration of its broker."""
        self._folder.mkdir()
        self._broker_config.write_text(configuration(self.port, self._folder), encoding="utf-8")

    def configure(self, link: BrokerConnection, ports: Ports, token: str) -> None:
        """Write the configuration with which edgecore connects at its next start.

        Args:
            link: Transport and rate limit.
            ports: Ports of the cloud side.
            token: Token for joining the first time.
        """
        self.link = link
        tree = settings.edgecore(
            ports, self._folder, name=self.name, broker_port=self.port, link=link, token=token
        )
        write_private(self._config, json.dumps(tree))
