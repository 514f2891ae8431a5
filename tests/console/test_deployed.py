"""The console as systemd and compose start it: their own command lines, on a provisioned site."""

import os
import shlex
import shutil
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from bus.broker.process import free_port
from bus.security import certificates
from bus.security.certificates import Authority
from bus.systemd.sd_notify import ALIVE, READY
from cloud.dataset.store import Store
from console.access.accounts import Accounts
from tests.bus.systemd.test_sd_notify import Supervisor
from tests.conftest import DEADLINE_S, ROOT
from tests.deploy.test_systemd import unit
from tests.sites import authority, broker_of, free_ports, provision, wait_until

pytestmark = pytest.mark.slow

UNIT = ROOT / "deploy/systemd/gleaner-console.service"
COMPOSE = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text("utf-8"))["services"]["console"]
# As both say: no privilege can be gained, and none is there.
UNPRIVILEGED = ["setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]


@pytest.fixture(scope="module")
def site(tmp_path_factory, mosquitto) -> Iterator[Path]:
    """A site with the cloud's broker, which asks for certificates, and a dataset."""
    folder, port = tmp_path_factory.mktemp("deployed"), free_ports()
    provision(folder / "site", "--cloud", f"127.0.0.1:{port}", "--edge", "edge-1", "--devices", "pi-1")
    with broker_of(folder / "site/cloud", port, mosquitto):
        yield folder


@contextmanager
def started(
    words: list[str], places: Mapping[str, Path], **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `gleaner` with the words of a unit or service, whose folders are at other places, as it would."""
    for name, place in places.items():
        words = [word.replace(name, str(place)) for word in words]
    privileges = UNPRIVILEGED if shutil.which("setpriv") and not os.geteuid() else []
    process = subprocess.Popen(
        [*privileges, sys.executable, "-m", "cli.main", *words],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(DEADLINE_S) == 0


def page(url: str, trusted: ssl.SSLContext | None = None) -> str:
    browser = urllib.request.build_opener(
        urllib.request.HTTPCookieProcessor(), urllib.request.HTTPSHandler(context=trusted)
    )
    request = urllib.request.Request(url, headers={"Accept": "text/html"})
    with browser.open(request, timeout=DEADLINE_S) as answer:
        return str(answer.read().decode())


def test_the_unit_starts_the_console(site, tmp_path):
    """Its ExecStart, with another port: systemd is told when it is ready, and the address file opens it."""
    program, *words = shlex.split(unit(UNIT)["Service"]["ExecStart"])
    assert Path(program).name == "gleaner"
    Store.open(str(tmp_path / "collector/gleaner.lance"))
    supervisor = Supervisor(tmp_path / "notify")
    places = {"/etc/gleaner": site / "site/cloud", "/var/lib/gleaner": tmp_path}
    notify = {"NOTIFY_SOCKET": str(supervisor.path)}
    with started([*words, "--listen", "127.0.0.1:0"], places, **notify):
        told = supervisor.until(ALIVE)
        assert READY in told[0]
        assert "<h1>Now</h1>" in page((tmp_path / "console/address").read_text("utf-8").strip())
        assert (tmp_path / "console/console.db").stat().st_mode & 0o077 == 0
    supervisor.close()


def test_the_service_of_compose_starts_the_console(site, tmp_path):
    """Its command, with another port, and its health check: HTTPS, an account, and its own folder."""
    cloud = tmp_path / "cloud"
    shutil.copytree(site / "site/cloud", cloud)
    port, probes = free_port(), f"127.0.0.1:{free_port()}"
    (cloud / "console.toml").write_text(
        f'probes = "{probes}"\n' + (cloud / "console.toml").read_text("utf-8")
    )
    for file in ("console.pem", "console.key", "ca.pem"):
        assert (cloud / file).exists()
    trusted = https(cloud, authority(site / "site"))
    Accounts(cloud / "accounts.json").put("ada", "operator", "correct horse battery")
    Store.open(str(tmp_path / "store/dataset.lance"))
    places = {
        "/etc/gleaner": cloud, "/var/lib/gleaner/store": tmp_path / "store",
        "/var/lib/gleaner/console": tmp_path / "console", "0.0.0.0:8765": f"127.0.0.1:{port}",
    }  # fmt: skip
    kind, *check = COMPOSE["healthcheck"]["test"]
    assert kind == "CMD"
    words = [sys.executable, *(word.replace("127.0.0.1:8481", probes) for word in check[1:])]
    with started(list(COMPOSE["command"]), places):
        wait_until(lambda: subprocess.run(words, check=False, capture_output=True).returncode == 0)
        assert "Name or password" not in page(f"https://localhost:{port}/", trusted)
        assert 'action="/login"' in page(f"https://localhost:{port}/", trusted)


def https(folder: Path, signer: Authority) -> ssl.SSLContext:
    """Write a certificate for the pages, and return who trusts it."""
    key = certificates.new_key()
    (folder / "https.key").write_bytes(key)
    (folder / "https.pem").write_bytes(
        certificates.broker_certificate(signer, key, "console", ["localhost"], days=2)
    )
    return ssl.create_default_context(cafile=str(folder / "ca.pem"))
