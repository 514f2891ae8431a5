"""A stand-in for the API server: stores Rules and RuleEndpoints that fit KubeEdge's schemas, and lists nodes.

It reproduces a property that was measured on KubeEdge: EventBus never subscribes to the topic of a Rule that
was created while its node was offline.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import jsonschema
from aiohttp import web

from tests.crds import check
from tests.router import StandInRouter

TOKEN = "secret"
_RULES = "/apis/rules.kubeedge.io/v1/namespaces/gleaner"


@dataclass
class StandInApiServer:
    """Rules and RuleEndpoints by kind and name.

    Args:
        router: The stand-in Router that applies the Rules.
        nodes: Names of the nodes with KubeEdge's label.
        url: Its URL; set by `running`.
        kept: Resources by kind and name.
        log: What was created and deleted.
    """

    router: StandInRouter
    nodes: list[str] = field(default_factory=list)
    url: str = ""
    kept: dict[tuple[str, str], Any] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["StandInApiServer"]:
        """Run for the duration of a block; at first no topic has a Rule."""
        application = web.Application(middlewares=[self._authenticate])
        application.router.add_get("/api/v1/nodes", self._nodes)
        application.router.add_get(f"{_RULES}/{{kind}}", self._list)
        application.router.add_post(f"{_RULES}/{{kind}}", self._create)
        application.router.add_delete(f"{_RULES}/{{kind}}/{{name}}", self._delete)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"kind": "Status", "message": "Unauthorized"}, status=401)
        response: web.StreamResponse = await handler(request)
        return response

    async def _nodes(self, request: web.Request) -> web.Response:
        assert request.query["labelSelector"] == "node-role.kubernetes.io/edge"
        return web.json_response({"items": [{"metadata": {"name": name}} for name in self.nodes]})

    async def _list(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        return web.json_response(
            {"items": [manifest for (of, _), manifest in self.kept.items() if of == kind]}
        )

    async def _create(self, request: web.Request) -> web.Response:
        kind, manifest = request.match_info["kind"], await request.json()
        name = manifest["metadata"]["name"]
        if (kind, name) in self.kept:
            return web.json_response({"kind": "Status", "message": "already exists"}, status=409)
        try:
            check(manifest)
        except jsonschema.ValidationError as error:
            return web.json_response({"kind": "Status", "message": error.message}, status=422)
        assert f"{manifest['kind'].lower()}s" == kind
        self.kept[kind, name] = manifest
        self.log.append(f"create {name}")
        node = manifest["spec"].get("sourceResource", {}).get("node_name")
        if node is not None and node not in self.router.away:
            self.router.deaf.discard(_topic(manifest))
        return web.json_response(manifest, status=201)

    async def _delete(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        deleted = self.kept.pop((request.match_info["kind"], name), None)
        if deleted is None:
            return web.json_response({"kind": "Status", "message": "not found"}, status=404)
        self.log.append(f"delete {name}")
        self.router.deaf.add(_topic(deleted))
        return web.json_response({"kind": "Status", "status": "Success"})


def _topic(rule: dict[str, Any]) -> str:
    return f"gleaner/{rule['spec']['sourceResource']['topic']}"
