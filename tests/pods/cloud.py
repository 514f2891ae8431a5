"""The cloud machine: control plane, cloudcore with the Router, and a node with Kubernetes' own kubelet."""

import asyncio
import base64
import json
import secrets
import subprocess
from functools import partial
from pathlib import Path

from bus.security import certificates
from bus.security.certificates import Authority
from tests.kubeedge.service import write_private
from tests.pods import addresses as at
from tests.pods import runtime, settings
from tests.pods.kubectl import Kubectl, Thing, until
from tests.pods.machine import Machine
from tests.pods.programs import PodPrograms
from tests.pods.service import Service

_DAYS = 30


class Cloud:
    """The programs of the cloud machine.

    Args:
        machine: Where they run.
        folder: For their files.
        programs: The built programs.
    """

    def __init__(self, machine: Machine, folder: Path, programs: PodPrograms) -> None:
        self.machine = machine
        self.folder = folder
        self.kubectl = Kubectl(folder / "host.kubeconfig")
        self.join_token = ""
        self._programs = programs

        def service(name: str, *command: str | Path) -> Service:
            return Service(name, machine, folder, [str(word) for word in command])

        self.etcd = service("etcd", programs.core.etcd, *settings.etcd(folder))
        self.apiserver = service(
            "kube-apiserver", programs.core.apiserver, *settings.apiserver(folder / "pki")
        )
        self.controllers = service(
            "kube-controller-manager", programs.controller_manager, *settings.controller_manager(folder)
        )
        self.scheduler = service("kube-scheduler", programs.scheduler, *settings.scheduler(folder))
        self.cloudcore = service(
            "cloudcore", programs.core.cloudcore, f"--config={folder / 'cloudcore.yaml'}"
        )
        self.containerd = service("containerd", "/usr/bin/containerd", "--config", folder / "containerd.toml")
        self.kubelet = service(
            "kubelet", programs.kubelet, f"--config={folder / 'kubelet.yaml'}",
            f"--kubeconfig={folder / 'kubeconfig'}", "--hostname-override=cloud", f"--node-ip={at.CLOUD}",
        )  # fmt: skip
        self.proxy = service("kube-proxy", programs.proxy, f"--config={folder / 'kube-proxy.yaml'}")
        self.policies = service("kube-router", programs.policies, *settings.kube_router(folder))
        self.names = service(
            "dnsmasq", "/usr/sbin/dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv",
            "--no-hosts", "--user=root", f"--hostsdir={folder / 'names'}", f"--listen-address={at.DNS}",
            "--bind-interfaces", "--pid-file=", "--local=/svc/", "--local=/cluster.local/",
        )  # fmt: skip

    def lay_out(self) -> None:
        """Write keys and configurations."""
        for name in ("pki", "names"):
            (self.folder / name).mkdir(parents=True)
        _write_keys(self.folder / "pki")
        token = secrets.token_urlsafe(32)
        write_private(self.folder / "pki/tokens.csv", f"{token},lab,lab,system:masters\n")
        for name, address in (("kubeconfig", at.CLOUD), ("host.kubeconfig", at.CLOUD_LAN)):
            tree = settings.kubeconfig(self.folder / "pki/ca.pem", token, address)
            write_private(self.folder / name, json.dumps(tree))
        trees = {
            "cloudcore.yaml": settings.cloudcore(self.folder),
            "kubelet.yaml": settings.kubelet(self.folder, cgroup=self.machine.cgroup),
            "kube-proxy.yaml": settings.kube_proxy(self.folder),
        }
        for name, tree in trees.items():
            (self.folder / name).write_text(json.dumps(tree), encoding="utf-8")
        (self.folder / "upstream.conf").write_text("nameserver 127.0.0.1\n")
        (self.folder / "resolv.conf").write_text(
            f"nameserver {at.DNS}\nsearch gleaner.svc.cluster.local svc.cluster.local cluster.local\n"
        )

    async def start_runtime(self) -> None:
        """Start containerd and the name server."""
        self.machine.run("ip", "addr", "add", f"{at.DNS}/32", "dev", "lo")
        self.machine.run("mount", "--bind", str(self.folder / "resolv.conf"), "/etc/resolv.conf")
        await runtime.start(self.machine, 1, self.containerd, self.folder)
        self.names.start()

    async def start_control_plane(self) -> None:
        """Start etcd, the API server and its controllers, and create KubeEdge's resource definitions."""
        self.etcd.start()
        self.apiserver.start()
        await self.answers()
        self.controllers.start()
        self.scheduler.start()
        for definitions in {path.parent for path in self._programs.core.resource_definitions}:
            await self.kubectl.run("apply", "--server-side", "-f", definitions)
        self.kubectl.apply(namespace("kubeedge"))

    async def start_node(self) -> None:
        """Start kubelet and kube-proxy, wait until the node is ready, and enforce NetworkPolicies on it."""
        self.kubelet.start()
        self.proxy.start()
        await self.node_ready("cloud")
        self.policies.start()

    async def start_cloudcore(self) -> None:
        """Start cloudcore, and wait until nodes can join; the Router gets an address in the cluster."""
        (self.folder / "cloudcore").mkdir(exist_ok=True)
        self.cloudcore.start()
        await until(self._joinable, "cloudcore's token", told=self.cloudcore.tail)
        self.kubectl.apply(_router_slice())

    async def answers(self) -> None:
        """Wait until the API server answers."""
        await until(self._ready, "the API server", told=self.apiserver.tail)

    async def node_ready(self, name: str) -> None:
        """Wait until a node is ready."""
        await until(partial(self.node_is, name, ready=True), f"node {name} ready", told=self.kubelet.tail)

    async def publish_names(self) -> None:
        """Give the Services names; a cluster's own name server would follow them."""
        lines = []
        for thing in self.kubectl.get("services", "--all-namespaces"):
            name = f"{thing['metadata']['name']}.{thing['metadata']['namespace']}.svc"
            if (address := thing["spec"].get("clusterIP", "None")) != "None":
                lines.append(f"{address} {name} {name}.cluster.local\n")
        temporary = self.folder / "names.new"
        temporary.write_text("".join(sorted(lines)))
        await asyncio.to_thread(temporary.replace, self.folder / "names/services")

    async def _ready(self) -> bool:
        return await self.kubectl.run("get", "--raw", "/readyz") == "ok"

    async def node_is(self, name: str, *, ready: bool) -> bool:
        """Return True if a node is ready, or not ready, as asked for."""
        path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
        return (await self.kubectl.run("get", "node", name, "-o", path) == "True") == ready

    async def _joinable(self) -> bool:
        token = await self.kubectl.run(
            "-n", "kubeedge", "get", "secret", "tokensecret", "-o", "jsonpath={.data.tokendata}"
        )
        self.join_token = base64.b64decode(token).decode()
        return bool(token)


def _write_keys(folder: Path) -> None:
    """Write a CA, the API server's certificate and the key that signs the tokens of service accounts."""
    key = certificates.new_key()
    authority = Authority(certificates.authority_certificate(key, "laboratory", days=_DAYS), key)
    own = certificates.new_key()
    names = ["127.0.0.1", at.CLOUD, at.CLOUD_LAN, at.API_SERVICE, "kubernetes.default.svc"]
    certificate = certificates.broker_certificate(authority, own, "kube-apiserver", names, days=_DAYS)
    (folder / "ca.pem").write_bytes(authority.certificate)
    (folder / "apiserver.pem").write_bytes(certificate)
    write_private(folder / "apiserver.key", own.decode())
    subprocess.run(  # openssl with fixed arguments
        ["openssl", "genpkey", "-algorithm", "RSA", "-out", str(folder / "service-account.key")],
        check=True,
        capture_output=True,
    )


def namespace(name: str) -> Thing:
    """Return a namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _router_slice() -> Thing:
    """Return the address behind the Service `router`: its selector matches no pod, cloudcore is a process."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "router-process",
            "namespace": "kubeedge",
            "labels": {"kubernetes.io/service-name": "router"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": at.ROUTER, "protocol": "TCP"}],
        "endpoints": [{"addresses": [at.CLOUD], "conditions": {"ready": True}}],
    }
