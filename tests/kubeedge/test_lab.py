"""The laboratory's own promises, which need no KubeEdge: it keeps to this machine, and ends only its own."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

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
    said = json.dumps([cloudcore, edgecore, settings.kubeconfig(ports, tmp_path / "ca", "t")])
    said += " ".join(settings.etcd_options(ports, tmp_path) + settings.apiserver_options(ports, tmp_path))
    inside_the_cluster = "10.0.0.0"
    assert set(re.findall(r"\d+\.\d+\.\d+\.\d+", said)) == {"127.0.0.1", inside_the_cluster}
    assert cloudcore["modules"]["iptablesManager"] == {"enable": False}


def test_a_service_is_ended_by_a_later_command(tmp_path: Path) -> None:
    """Whoever has the folder can end what was started there."""
    service = Service("sleeper", tmp_path, [sys.executable, "-c", "import time; time.sleep(60)"])
    service.start()
    assert end(tmp_path / "sleeper.pid")
    assert (service.pid, service.ended()) == (0, -15)


def test_a_pid_that_belongs_to_another_program_by_now_is_left_alone(tmp_path: Path) -> None:
    """A process is ours only if it runs the program that was started."""
    pid_file = tmp_path / "cloudcore.pid"
    pid_file.write_text(f"{os.getpid()} {locate().cloudcore}")
    assert running(pid_file) == 0
    assert not end(pid_file)


async def test_a_folder_with_other_things_in_it_is_not_cleared(tmp_path: Path) -> None:
    """A start wipes its folder, so it takes only an empty one or one of its own."""
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(LabError, match="other things"):
        await Lab(tmp_path, locate()).start()
    assert (tmp_path / "letter").read_text() == "dear"


def test_the_laboratorys_ports_are_not_taken_while_a_part_is_down() -> None:
    """They are outside the range from which Linux takes the ports of outgoing connections."""
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert not set(range(first, last + 1)) & {settings.steady_port() for _ in range(100)}
