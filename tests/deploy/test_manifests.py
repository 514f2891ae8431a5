"""The manifests: objects against strict schemas, and their commands and configurations against the code."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from bus.broker.mosquitto_conf import Access, configuration
from bus.broker.process import free_port, is_listening
from bus.config import Tls, load
from bus.gateway.config import GatewayConfig
from bus.observability import metric_catalogue
from cli.main import main, parser_of
from cloud.collector.config import CollectorConfig
from console.config import ConsoleConfig
from console.exposure import check_exposure
from edge.config import EdgeConfig
from edge.modelserver import flags
from tests import crds
from tests.conftest import ROOT
from tests.sites import free_ports, provision, wait_until

KUBERNETES = "1.32"
OPERATOR = {"ca": "ca.pem", "cert": "operator.pem", "key": "operator.key"}
HERE = ROOT / "deploy/kubeedge"
OVERLAYS = ("lab", "single-node", "fleet")
SECRETS = {
    "broker",
    "collector",
    "console",
    "gateway",
    "s3",
}  # created by the operator, from the provisioned files
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "CronJob")
AT_EDGE = ("edge", "edge-broker", "mirror")
Object = dict[str, Any]


@cache
def built(overlay: str) -> list[Object]:
    """Return all objects of an overlay."""
    if shutil.which("kubectl") is None:
        pytest.skip("building an overlay requires kubectl")
    done = subprocess.run(
        ["kubectl", "kustomize", str(HERE / "overlays" / overlay)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Yield the name and the pod spec of each workload."""
    for one in objects:
        if one["kind"] in WORKLOADS:
            spec = one["spec"].get("jobTemplate", one)["spec"] if one["kind"] == "CronJob" else one["spec"]
            yield one["metadata"]["name"], spec["template"]["spec"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_fits_a_strict_schema(overlay):
    """Kubernetes and KubeEdge know every field of every object; each object exists once."""
    objects = built(overlay)
    for one in objects:
        if crds.knows(one):
            crds.check(one)
        else:
            kubernetes_validate.validate(one, KUBERNETES, strict=True)
    names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_g5_no_pod_has_more_permissions_than_it_needs(overlay):
    """No root, read-only root file system, no capabilities, a memory limit, and only Gleaner's host paths."""
    for name, pod in pods(built(overlay)):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", name
        assert pod.get("automountServiceAccountToken") is False or pod.get("serviceAccountName"), name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True, name
            assert (context["allowPrivilegeEscalation"], context["capabilities"]) == (
                False,
                {"drop": ["ALL"]},
            )
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]
            assert not container["image"].endswith(":latest")
        for volume in pod.get("volumes", []):
            path = volume.get("hostPath", {}).get("path", "/etc/gleaner")
            assert path.startswith(("/etc/gleaner", "/var/lib/gleaner/")), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_edge_and_cloud_run_on_their_own_nodes(overlay):
    """Pods of the edge run only on edge nodes and tolerate their taint; all others never do."""
    for name, pod in pods(built(overlay)):
        (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
            "nodeSelectorTerms"
        ]
        (rule,) = term["matchExpressions"]
        at_edge = name in AT_EDGE
        assert (rule["key"], rule["operator"]) == (
            "node-role.kubernetes.io/edge",
            "Exists" if at_edge else "DoesNotExist",
        )
        assert bool(pod.get("tolerations")) == at_edge


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_reference_exists(overlay):
    """Config maps, volumes, service accounts and mounts exist under the names that refer to them."""
    objects = built(overlay)
    there = {(one["kind"], one["metadata"]["name"]) for one in objects}
    for name, pod in pods(objects):
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        claims = [one for one in objects if one["metadata"]["name"] == name and one["kind"] == "StatefulSet"]
        own = {
            claim["metadata"]["name"]
            for one in claims
            for claim in one["spec"].get("volumeClaimTemplates", [])
        }
        for volume in volumes.values():
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in there
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in there
            assert volume.get("secret", {}).get("secretName", "broker") in SECRETS
        for container in pod["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= set(volumes) | own
            for variable in container.get("env", []):
                reference = variable.get("valueFrom", {}).get("configMapKeyRef")
                assert reference is None or ("ConfigMap", reference["name"]) in there
        assert ("ServiceAccount", pod.get("serviceAccountName", "gateway")) in there


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_restart_of_edgecore_takes_nothing_from_a_running_pod(overlay):
    """On edge nodes a ConfigMap is mounted file by file, and an emptyDir is in memory."""
    for name, pod in pods(built(overlay)):
        if name not in AT_EDGE:
            continue
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert all(one["emptyDir"].get("medium") == "Memory" for one in volumes.values() if "emptyDir" in one)
        mounts = [mount for container in pod["containers"] for mount in container["volumeMounts"]]
        assert all("subPath" in mount for mount in mounts if "configMap" in volumes[mount["name"]])
        assert any("configMap" in volumes[mount["name"]] for mount in mounts) or name == "mirror"
        assert pod["dnsPolicy"] == "Default"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_probe_opens_a_tls_connection_without_tls(overlay):
    """A broker would write an error of OpenSSL to its log at each probe of such a port."""
    for name, pod in pods(built(overlay)):
        for container in pod["containers"]:
            named = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                port = container.get(kind, {}).get("tcpSocket", {}).get("port")
                assert named.get(port, port) not in (8883, 8884), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_command_accepts_its_arguments(overlay):
    """The arguments of each container are valid for its command."""
    seen = set()
    for _, pod in pods(built(overlay)):
        for container in pod["containers"]:
            words = [re.sub(r"\$\(\w+\)", "edge-1", word) for word in container.get("args", [])]
            words = [
                re.sub(r"=/etc/gleaner/.*", f"={__file__}", word) for word in words
            ]  # the files have to exist
            if words[:1] == ["modelserver"]:
                flags.parse(words[1:])
            elif container["image"].startswith("gleaner-"):
                parser, _ = parser_of(words[0])
                parser.parse_args(words[1:])
            else:
                continue
            seen.add(words[0])
    assert seen >= {"cloud", "edge", "gateway"}


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("base/cloud/gateway.toml", GatewayConfig),
        ("base/cloud/collector.toml", CollectorConfig),
        ("components/console/console.toml", ConsoleConfig),
        ("base/edge/edge.toml", EdgeConfig),
    ],
)
def test_every_configuration_is_valid(path, kind):
    """The configuration files in the config maps are valid, without unknown fields."""
    loaded = load(HERE / path, kind)
    assert loaded.broker.port in (8883, 8884)
    if isinstance(loaded, ConsoleConfig):
        check_exposure(loaded)  # refuses a console that a network could open without an account and TLS


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_router_is_where_cloudcore_is(overlay):
    """Its Service and its policy are in cloudcore's namespace, with any components of an overlay."""
    places = {
        (one["kind"], one["metadata"]["namespace"])
        for one in built(overlay)
        if one["kind"] in {"Service", "NetworkPolicy"} and one["metadata"]["name"] == "router"
    }
    assert places <= {("Service", "kubeedge"), ("NetworkPolicy", "kubeedge")}
    assert places or overlay == "lab"


def test_g5_only_the_gateway_reaches_the_router():
    """The Router has no authentication: a NetworkPolicy admits the gateway, and edge nodes to other ports."""
    (policy,) = [
        one
        for one in yaml.safe_load_all((HERE / "base/router.yaml").read_text())
        if one["kind"] == "NetworkPolicy"
    ]
    sources = {
        port["port"]: rule.get("from")
        for rule in policy["spec"]["ingress"]
        for port in rule["ports"]
        if port.get("protocol", "TCP") == "TCP"
    }
    assert set(sources) == {9443, 10000}
    (source,) = sources[9443]
    assert source["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "gateway"}
    assert source["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "gleaner"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_rules_are_up_to_date(overlay, tmp_path):
    """The committed Rules are those that `gleaner deploy render` writes for their nodes."""
    folder = HERE / "overlays" / overlay / "nodes"
    rules = [one["spec"] for one in yaml.safe_load_all((folder / "rules.yaml").read_text())]
    up = [rule for rule in rules if rule.get("source") == "eventbus"]
    gateway = up[0]["targetResource"]["resource"].partition("/up/")[0]
    topics = [rule["sourceResource"]["topic"] for rule in up]
    devices = [topic.removeprefix("v1/feedback/") for topic in topics if topic.startswith("v1/feedback/")]
    nodes = (folder / "nodes.env").read_text().strip().removeprefix("NODES=")
    words = ["--nodes", nodes, "--gateway", gateway, "--out", str(tmp_path)]
    words += ["--devices", ",".join(devices)] if devices else []
    assert main(["deploy", "render", *words]) == 0
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        path.name: path.read_text() for path in tmp_path.iterdir()
    }


def test_the_brokers_have_the_provisioned_configuration():
    """Limits, ACL and TLS of both brokers are those that `gleaner provision` writes."""
    home = "/etc/gleaner"
    tls = Tls(ca=f"{home}/ca.pem", certificate=f"{home}/broker.pem", key=f"{home}/broker.key")
    access = Access(tls, f"{home}/operations.pem", f"{home}/rights", f"{home}/revoked.crl")
    wanted = configuration(8883, Path("/var/lib/mosquitto"), address="", access=access).splitlines()
    cloud = settings("cloud")
    assert sorted(cloud) == sorted([*wanted, "listener 1880"])
    own = ["listener 1883 127.0.0.1", f"password_file {home}/passwords"]
    assert sorted(settings("edge")) == sorted([*wanted, *own])


@pytest.mark.parametrize(("side", "folder"), [("cloud", "cloud"), ("edge", "edges/edge-1")])
def test_mosquitto_starts_with_the_configuration_of_a_config_map(side, folder, mosquitto, tmp_path, capsys):
    """A real mosquitto starts with each config map and provisioned files, and `gleaner doctor` reaches it."""
    site = tmp_path / "site"
    provision(site, "--cloud", "127.0.0.1", "--edge", "edge-1")
    identity, port, loopback = site / folder, free_ports(), free_port()
    (identity / "passwords").write_text("")
    (tmp_path / "data").mkdir()
    text = (HERE / "base" / side / "mosquitto.conf").read_text()
    places = {
        "/etc/gleaner": identity,
        "/var/lib/mosquitto": tmp_path / "data",
        "listener 8883": f"user root\nlistener {port} 127.0.0.1",
        "listener 8884": f"listener {port + 1} 127.0.0.1",
        "listener 1880": f"listener {loopback}",
        "listener 1883": f"listener {loopback}",
    }
    for place, own in places.items():
        text = text.replace(place, str(own))
    (tmp_path / "mosquitto.conf").write_text(text)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(mosquitto.binary), "-c", str(tmp_path / "mosquitto.conf")],
            env=mosquitto.environment(),
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: process.poll() is not None or is_listening(port))
        assert process.poll() is None, (tmp_path / "log").read_text()
        wait_until(lambda: is_listening(loopback) and is_listening(port + 1))
        operator = [f"--{name}={site}/operator/{file}" for name, file in OPERATOR.items()]
        main(["doctor", f"--broker=127.0.0.1:{port + 1}", *operator, "--node=edge-1", "--timeout=10"])
        said = capsys.readouterr().out
        assert "ok   broker: " in said, said
        assert "ok   probe: " in said, said
    finally:
        process.terminate()
        process.wait()


def settings(side: str) -> list[str]:
    """Return the lines of a broker's config map without comments."""
    lines = (HERE / "base" / side / "mosquitto.conf").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_collectors_scale_by_a_metric_that_they_export():
    """The autoscaler fits a strict schema, its target exists, and collectors export its metric."""
    path = HERE / "components/autoscaling/collectors.yaml"
    scaler = yaml.safe_load(path.read_text(encoding="utf-8"))
    kubernetes_validate.validate(scaler, KUBERNETES, strict=True)
    target = yaml.safe_load((HERE / "base/cloud/collector.yaml").read_text(encoding="utf-8"))
    named = {"apiVersion": target["apiVersion"], "kind": target["kind"], "name": target["metadata"]["name"]}
    assert scaler["spec"]["scaleTargetRef"] == named
    (metric,) = scaler["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == metric_catalogue.SAMPLES_WAITING.shown_name
    assert "collector" in metric_catalogue.SAMPLES_WAITING.services
