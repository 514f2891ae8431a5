"""Metrics of real services, scraped by a real Prometheus."""

import asyncio
import re
from contextlib import AsyncExitStack

from msgspec import structs

from bus.broker.process import free_port
from bus.gateway import service as gateway_service
from bus.gateway.config import GatewayConfig
from bus.notifications import service as notify_service
from bus.notifications.config import NotifyConfig
from bus.notifications.receivers import read_receivers
from bus.security import certificates
from cloud.collector import collector
from cloud.collector.config import CollectorConfig
from cloud.dataset.store import Store
from cloud.evaluation.audit_stats import RolloutAudits
from cloud.registry.registry import Registry
from cloud.retraining import loop
from cloud.retraining.config import TrainerConfig
from cloud.rollout.runner import run_rollout
from console import service as console_service
from console.config import ConsoleConfig, ServerTls
from device import service as device_service
from device.config import DeviceConfig
from edge import service as edge_service
from tests.conftest import ROOT, eventually
from tests.console.filling import begin_rollout
from tests.deploy.test_observability import ALERTS, board_queries
from tests.nodes import photo
from tests.prometheus import Prometheus, program, prometheus

HERE = ROOT / "deploy/observability"
SERVICES = ("edge", "collector", "trainer", "rollout", "gateway", "console", "device", "notify")


def services(config, folder):
    """Yield each service as a coroutine, with its own probes."""
    probes = {name: f"127.0.0.1:{free_port()}" for name in SERVICES}
    photos = folder / "photos"
    photos.mkdir()
    for number in range(3):
        (photos / f"{number}.jpg").write_bytes(photo(number))
    dataset, broker = str(folder / "dataset.lance"), config.broker
    Store.open(dataset)
    (folder / "models").mkdir()
    yield probes
    yield edge_service.run(structs.replace(config, probes=probes["edge"]))
    yield collector.run(CollectorConfig(broker=broker, dataset=dataset, probes=probes["collector"]))
    trainer = TrainerConfig(
        broker=broker, dataset=dataset, models=str(folder / "models"), probes=probes["trainer"], every_s=1
    )
    yield loop.run_loop(trainer)
    yield gateway_service.run(
        GatewayConfig(broker=broker, listen=f"127.0.0.1:{free_port()}", probes=probes["gateway"])
    )
    (folder / "rollouts").mkdir()
    begin_rollout(folder / "rollouts", groups=[["elsewhere"]])  # it waits for that node
    state = Registry(folder / "rollouts").rollout_file(2)
    yield run_rollout(
        state, broker, None, sign=lambda one: one, audits=lambda _: RolloutAudits(), probes=probes["rollout"]
    )
    console = ConsoleConfig(
        broker=broker, listen="127.0.0.1:0", dataset=dataset, models=str(folder / "models"),
        state_dir=str(folder / "console"), tls=https(folder), probes=probes["console"],
    )  # fmt: skip
    yield console_service.run(console)
    device = DeviceConfig(
        broker=broker, camera=f"folder:{photos}?loop=1", interval_s=0.2, state_dir=str(folder / "device"),
        probes=probes["device"],
    )  # fmt: skip
    yield device_service.run(device, lambda _: None)
    (folder / "notify.urls").write_text(f"json://127.0.0.1:{free_port()}\n")
    notify = NotifyConfig(broker=broker, urls_file=str(folder / "notify.urls"), probes=probes["notify"])
    yield notify_service.run(notify, read_receivers(folder / "notify.urls"))


def https(folder):
    """Write a certificate for the console's pages, so that the board has one to show."""
    key, name = certificates.new_key(), "console"
    (folder / "https.key").write_bytes(key)
    (folder / "https.pem").write_bytes(certificates.authority_certificate(key, name, days=60))
    return ServerTls(certificate=str(folder / "https.pem"), key=str(folder / "https.key"))


def configuration(folder, probes):
    """Write the shipped configuration with these targets and a short interval."""
    text = (HERE / "prometheus.yml").read_text()
    (folder / "prometheus.yml").write_text(re.sub(r"_interval: 15s", "_interval: 500ms", text))
    (folder / "rules.yml").write_text((HERE / "rules.yml").read_text())
    targets = "".join(f'- {{labels: {{node: {name}}}, targets: ["{at}"]}}\n' for name, at in probes.items())
    (folder / "targets.yml").write_text(targets)
    return folder / "prometheus.yml"


async def test_prometheus_scrapes_every_service_and_answers_the_board(config, tmp_path):
    """G3: each service answers with at most 40 series; every panel has data and every alert is evaluated."""
    program("prometheus")  # before the services start: it may be downloaded, or the test be skipped
    probes, *running = services(config, tmp_path)
    async with AsyncExitStack() as stack:
        tasks = [asyncio.create_task(service) for service in running]
        stack.push_async_callback(asyncio.gather, *tasks, return_exceptions=True)
        for task in tasks:
            stack.callback(task.cancel)
        server = stack.enter_context(prometheus(configuration(tmp_path, probes), tmp_path / "data"))

        async def until_answered(query: str) -> None:
            while not await asyncio.to_thread(server.answers, query):
                assert not [task for task in tasks if task.done()], "a service ended"
                await asyncio.sleep(0.1)

        await until_answered(f"sum(up) == {len(SERVICES)}")
        await until_answered('sum(gleaner_results_total{status="ok"}) > 0')
        await until_answered('gleaner_samples_total{status="stored"} > 0')
        for query in board_queries():
            if "ALERTS" not in query:
                await until_answered(query)
        sizes = await asyncio.to_thread(server.answers, "scrape_samples_scraped")
        assert {one["metric"]["node"]: int(one["value"][1]) <= 40 for one in sizes} == dict.fromkeys(
            SERVICES, True
        )
        assert await alerts(server) == dict.fromkeys(ALERTS, "ok")


async def alerts(server: Prometheus) -> dict[str, str]:
    """Wait until each rule was evaluated and return its health."""
    found: dict[str, str] = {}

    def evaluated() -> bool:
        groups = (server.api("rules") or {"groups": []})["groups"]
        found.update({rule["name"]: rule["health"] for group in groups for rule in group["rules"]})
        return bool(found) and "unknown" not in found.values()

    await eventually(evaluated)
    return found
