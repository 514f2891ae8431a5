"""The laboratory itself, without KubeEdge: it stays on this machine and stops only its own processes."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from bus.broker.process import free_port
from tests.kubeedge import settings
from tests.kubeedge.lab import Lab, LabError
from tests.kubeedge.programs import locate
from tests.kubeedge.service import Service, end, running
from tests.kubeedge.settings import BrokerConnection, Ports


def test_everything_listens_on_loopback_and_leaves_the_firewall_alone(tmp_path: Path) -> None:
    """Every address in every configuration is 127.0.0.1, and cloudcore's iptablesManager is off."""
    ports = Ports.free()
    cloudcore = settings.cloudcore(ports, tmp_path)
    edgecore = settings.edgecore(
        ports, tmp_path, name="edge-1", broker_port=1883, link=BrokerConnection("quic"), token="t"
    )
    text = json.dumps([cloudcore, edgecore, settings.kubeconfig(ports, tmp_path / "ca", "t")])
    text += " ".join(settings.etcd_options(ports, tmp_path) + settings.apiserver_options(ports, tmp_path))
    inside_the_cluster = "10.0.0.0"
    assert set(re.findall(r"\d+\.\d+\.\d+\.\d+", text)) == {"127.0.0.1", inside_the_cluster}
    assert cloudcore["modules"]["iptablesManager"] == {"enable": False}


def test_a_service_is_stopped_by_a_later_command(tmp_path: Path) -> None:
    """A pid file suffices to stop the process of an earlier command."""
    service = Service("sleeper", tmp_path, [sys.executable, "-c", "import time; time.sleep(600)"])
    service.start()
    assert end(tmp_path / "sleeper.pid")
    assert (service.pid, service.ended()) == (0, -15)


def test_a_reused_pid_is_not_stopped(tmp_path: Path) -> None:
    """A process with the recorded pid that runs another program is left alone."""
    pid_file = tmp_path / "cloudcore.pid"
    pid_file.write_text(f"{os.getpid()} {locate().cloudcore}")
    assert running(pid_file) == 0
    assert not end(pid_file)


async def test_a_folder_with_other_files_is_not_cleared(tmp_path: Path) -> None:
    """The laboratory clears its folder, so it uses only an empty one or its own."""
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(LabError, match="files of something else"):
        await Lab(tmp_path, locate()).start()
    assert (tmp_path / "letter").read_text() == "dear"


def test_ports_are_not_ephemeral() -> None:
    """The ports are outside the range of outgoing connections, which could take them during a restart."""
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert not set(range(first, last + 1)) & {free_port() for _ in range(100)}
