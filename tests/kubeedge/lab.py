"""The laboratory: etcd, API server, cloudcore, and for each edge node a mosquitto and an edgecore."""

import asyncio
import base64
import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self

from bus.broker.process import is_listening
from bus.config import Broker
from bus.mqtt.client import Bus, transient_client_id
from schemas.errors import TransientError
from tests.conftest import running
from tests.kubeedge import objects, settings
from tests.kubeedge.api import Api, Thing
from tests.kubeedge.node import EdgeNode
from tests.kubeedge.programs import Programs
from tests.kubeedge.router import post
from tests.kubeedge.service import Service, write_private
from tests.kubeedge.settings import DEFAULT_LINK, HOST, BrokerConnection, Ports

NODES = ("edge-1", "edge-2")
_MARK = "cloudcore.yaml"  # marks a folder as one of the laboratory
_NAMESPACE = "lab"  # namespace of the Rule that tests whether a node is connected
_PING = f"{_NAMESPACE}/ping"
_PING_S = 5.0
_LOOK_S = 0.1
_READY_S = 600.0


class LabError(TransientError):
    """A process of the laboratory does not start."""


class Lab:
    """A KubeEdge installation on loopback.

    Args:
        folder: For all files; those of an earlier laboratory are removed.
        programs: The built programs.
        nodes: Names of the edge nodes.
        link: Connection of each edge node to cloudcore, until `connect()` changes it.
    """

    def __init__(
        self,
        folder: Path,
        programs: Programs,
        *,
        nodes: tuple[str, ...] = NODES,
        link: BrokerConnection = DEFAULT_LINK,
    ) -> None:
        self.folder = folder.resolve()
        self.ports = Ports.free()
        self._programs = programs
        self._link = link
        self._token = ""
        authority = self.folder / "apiserver/apiserver.crt"
        self.api = Api(self.ports.apiserver, secrets.token_urlsafe(32), authority)
        etcd = [str(programs.etcd), *settings.etcd_options(self.ports, self.folder)]
        apiserver = [str(programs.apiserver), *settings.apiserver_options(self.ports, self.folder)]
        cloudcore = [str(programs.cloudcore), f"--config={self.folder / _MARK}"]
        self.etcd = Service("etcd", self.folder, etcd)
        self.apiserver = Service("kube-apiserver", self.folder, apiserver)
        self.cloudcore = Service("cloudcore", self.folder, cloudcore)
        self.nodes = {name: EdgeNode(name, self.folder, programs) for name in nodes}

    @property
    def services(self) -> list[Service]:
        """All processes, in start order."""
        edge = [service for node in self.nodes.values() for service in (node.broker, node.edgecore)]
        return [self.etcd, self.apiserver, self.cloudcore, *edge]

    def route(self, node: str, namespace: str, path: str) -> str:
        """Return the Router's URL for a path of a node."""
        return f"http://{HOST}:{self.ports.router}/{node}/{namespace}{path}"

    async def __aenter__(self) -> Self:
        """Start all processes; entered when every node is connected."""
        try:
            await self.start()
        except BaseException:
            self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all processes."""
        self.stop()

    async def start(self) -> None:
        """Start all processes and wait until every node is connected.

        Raises:
            LabError: A process ended or did not start in time; the message quotes its log.
        """
        self._lay_out()
        self.etcd.start()
        await self.until(partial(_listens, self.ports.etcd), self.etcd)
        self.apiserver.start()
        await self.until(self._apiserver_ready, self.apiserver)
        await self._populate()
        self.cloudcore.start()
        await self.until(self._joinable, self.cloudcore)
        for node in self.nodes.values():
            node.broker.start()
            await self.until(partial(_listens, node.port), node.broker)
        await asyncio.gather(*(self.connect(name, self._link) for name in self.nodes))

    def stop(self) -> None:
        """Stop all processes in reverse order."""
        for service in reversed(self.services):
            service.stop()

    async def connect(self, node: str, link: BrokerConnection) -> None:
        """Connect a node with a transport; restarts its edgecore if the transport changes.

        Raises:
            LabError: It does not connect in time.
        """
        chosen = self.nodes[node]
        if chosen.link != link:
            chosen.edgecore.stop()
            chosen.configure(link, self.ports, self._token)
            chosen.edgecore.start()
        await self.connected(node)

    async def connected(self, node: str) -> None:
        """Wait until a message posted for a node arrives at its broker.

        Raises:
            LabError: None arrives in time.
        """
        # The Router's status does not suffice: it is 200 as long as the Router has a session, dead or alive.
        url = self.route(node, _NAMESPACE, "/ping")
        bus = Bus(Broker(port=self.nodes[node].port), transient_client_id("lab"))
        pings = bus.subscribe_raw(_PING)

        async def arrives() -> bool:
            nonce = secrets.token_hex(8).encode()
            if await post(url, nonce) != HTTPStatus.OK:
                return False
            try:
                async with asyncio.timeout(_PING_S):
                    while (await pings.get()).payload != nonce:
                        pass
            except TimeoutError:
                return False
            return True

        async with running(bus):
            await self.until(arrives, self.nodes[node].edgecore)

    async def until(self, holds: Callable[[], Awaitable[bool]], service: Service) -> None:
        """Wait until a condition holds that depends on a service.

        Raises:
            LabError: A service has ended, or it took too long; the message quotes the log.
        """
        deadline = time.monotonic() + _READY_S
        while not await holds():
            for one in self.services:
                if (code := one.ended()) is not None:
                    raise LabError(f"{one.name} ended with code {code}: {one.tail()}")
            if time.monotonic() > deadline:
                raise LabError(f"{service.name} was not ready within {_READY_S:.0f} s: {service.tail()}")
            await asyncio.sleep(_LOOK_S)

    def _lay_out(self) -> None:
        """Clear the folder and write the files that the processes read."""
        if self.folder.exists() and any(self.folder.iterdir()) and not (self.folder / _MARK).exists():
            raise LabError(
                f"cannot use {self.folder}: it has files of something else", hint="choose an empty folder"
            )
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        subprocess.run(  # openssl with fixed arguments
            ["openssl", "genpkey", "-algorithm", "RSA", "-out", self.folder / "service-account.key"],
            check=True,
            capture_output=True,
        )
        write_private(self.folder / "tokens.csv", f"{self.api.token},lab,lab,system:masters\n")
        access = settings.kubeconfig(self.ports, self.api.authority, self.api.token)
        write_private(self.folder / "kubeconfig", json.dumps(access))
        cloudcore = json.dumps(settings.cloudcore(self.ports, self.folder))
        (self.folder / _MARK).write_text(cloudcore, encoding="utf-8")
        for node in self.nodes.values():
            node.lay_out()

    async def _apiserver_ready(self) -> bool:
        return self.api.authority.exists() and await self.api.ready()

    async def _populate(self) -> None:
        """Create the objects that a node needs to join, and the Rule that `connected()` uses."""
        definitions = self._programs.resource_definitions
        for definition in definitions:
            await self.api.create(objects.DEFINITIONS, definition.read_bytes())

        async def established() -> bool:
            existing = await self.api.read(objects.DEFINITIONS) or {"items": []}
            return sum(map(_established, existing["items"])) == len(definitions)

        await self.until(established, self.apiserver)
        for name in self.nodes:
            await self.api.create(objects.NODES, objects.node_object(name))
        await self.prepare(_NAMESPACE)
        ping = objects.downlink_rule("ping", path="/ping", topic=_PING)
        await self.api.create(objects.rules_path(_NAMESPACE), ping)

    async def prepare(self, namespace: str) -> None:
        """Create a namespace with the two RuleEndpoints that its Rules refer to."""
        await self.api.create(objects.NAMESPACES, objects.namespace_object(namespace))
        for kind in ("rest", "eventbus"):
            await self.api.create(objects.endpoints_path(namespace), objects.endpoint_object(kind))

    async def _joinable(self) -> bool:
        """Return True if nodes can join cloudcore; stores the token that they need."""
        secret = await self.api.read(objects.TOKEN)
        if secret is not None:
            self._token = base64.b64decode(secret["data"]["tokendata"]).decode()
        return secret is not None and is_listening(self.ports.https)


async def _listens(port: int) -> bool:
    return is_listening(port)


def _established(definition: Thing) -> bool:
    conditions = definition.get("status", {}).get("conditions") or []
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)
