"""A real Home Assistant in its own environment, in the cache, driven by its HTTP API."""

import json
import os
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bus.broker.process import free_port
from tests.cached_environment import programs
from tests.conftest import DEADLINE_S

START_S = 180.0  # only ends a hang: the first start compiles 2000 modules
CONFIGURATION = """
homeassistant: {{name: Test, latitude: 0, longitude: 0, elevation: 0, unit_system: metric, time_zone: UTC}}
http: {{server_host: 127.0.0.1, server_port: {port}}}
config:
api:
logger: {{default: warning, logs: {{homeassistant.components.mqtt: info}}}}
"""


class HomeAssistant:
    """A running Home Assistant with one user."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._token = ""

    def call(self, path: str, body: object = None, method: str | None = None) -> Any:
        """Return the answer of its API, decoded if it is JSON."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        return self._open(urllib.request.Request(f"{self._url}{path}", data, headers, method=method))

    def _open(self, request: urllib.request.Request) -> Any:
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            content = answer.read()
            return (
                json.loads(content)
                if answer.headers["Content-Type"].startswith("application/json")
                else content
            )

    def answers(self) -> bool:
        """Return True once it serves its API."""
        try:
            self.call("/api/onboarding")
        except (urllib.error.URLError, ConnectionError):  # it also answers 500 while it starts
            return False
        return True

    def sign_up(self) -> None:
        """Create the first user, as its start page does, and use an access token of it."""
        client = f"{self._url}/"
        user = {"client_id": client, "name": "Ann", "username": "ann", "password": "secret", "language": "en"}
        code = self.call("/api/onboarding/users", user)["auth_code"]
        form = {"grant_type": "authorization_code", "code": code, "client_id": client}
        request = urllib.request.Request(f"{self._url}/auth/token", urllib.parse.urlencode(form).encode())
        self._token = self._open(request)["access_token"]

    def add_mqtt(self, port: int) -> str:
        """Set up its MQTT integration as a user does; return the id of the entry."""
        flow = self.call("/api/config/config_entries/flow", {"handler": "mqtt"})
        place = {"broker": "127.0.0.1", "port": port}
        done = self.call(f"/api/config/config_entries/flow/{flow['flow_id']}", place)
        assert done["type"] == "create_entry", done
        return str(done["result"]["entry_id"])

    def reload(self, entry_id: str) -> None:
        """Load an integration again: its MQTT client connects again."""
        self.call(f"/api/config/config_entries/entry/{entry_id}/reload", {})

    def states(self) -> dict[str, dict[str, Any]]:
        """Return all states, by the id of the entity."""
        return {state["entity_id"]: state for state in self.call("/api/states")}

    def state(self, entity: str) -> str | None:
        """Return the state of an entity; None if it does not exist."""
        found = self.states().get(entity)
        return None if found is None else str(found["state"])

    def press(self, button: str) -> None:
        """Press a button."""
        self.call("/api/services/button/press", {"entity_id": button})

    def image(self, entity: str) -> bytes:
        """Return the picture of an image entity."""
        found = self.call(f"/api/image_proxy/{entity}")
        assert isinstance(found, bytes)
        return found


@contextmanager
def home_assistant(folder: Path) -> Iterator[HomeAssistant]:
    """Run Home Assistant for the length of a block, entered before it answers."""
    hass, port = programs("homeassistant", shown="Home Assistant") / "hass", free_port()
    folder.mkdir()
    (folder / "configuration.yaml").write_text(CONFIGURATION.format(port=port))
    with (folder / "hass.log").open("wb") as log:
        process = subprocess.Popen(
            [hass, "--config", folder, "--skip-pip"], stdout=log, stderr=log, env=dict(os.environ)
        )
    try:
        yield HomeAssistant(port)
    finally:
        process.terminate()
        process.wait(DEADLINE_S)
