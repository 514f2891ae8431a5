"""What a laboratory could leave behind on this machine, where others may run containers too."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

_NAMES = ("glp-", "gleaner-")
_OURS = ("glp-", "gleaner", "cni0", "10.230.", "10.231.", "10.96.0.")
_FOLDERS = (
    "/var/lib/kubelet", "/var/lib/kubeedge", "/etc/kubeedge", "/var/lib/gleaner", "/etc/gleaner",
    "/var/lib/containerd", "/run/containerd", "/run/gleaner-pods",
)  # fmt: skip
_PROGRAMS = ("containerd", "containerd-shim-runc-v2", "edgecore", "cloudcore", "etcd", "kubelet", "dnsmasq")


def traces() -> dict[str, set[str]]:
    """Return processes, mounts, folders, links, network namespaces, cgroups and firewall rules, by kind."""
    firewall = subprocess.run(["iptables-save"], capture_output=True, text=True, check=False).stdout
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=False).stdout
    namespaces = Path("/run/netns")
    return {
        "processes": set(_processes()),
        "mounts": _ours(line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()),
        "folders": {path for path in _FOLDERS if Path(path).exists()},
        "links": _ours(line.split()[0] for line in links.splitlines()),
        "namespaces": _ours(path.name for path in namespaces.iterdir()) if namespaces.exists() else set(),
        "cgroups": {
            str(path)
            for path in Path("/sys/fs/cgroup").glob("*/*")
            if path.is_dir() and path.name.startswith(_NAMES)
        },
        "firewall": _ours(line.partition(" [")[0] for line in firewall.splitlines()),
    }


def _ours(lines: Iterable[str]) -> set[str]:
    return {line for line in lines if any(name in line for name in _OURS)}


def _processes() -> list[str]:
    """Return the programs of a laboratory that run; other processes of the machine come and go."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name = (folder / "comm").read_text().strip()
        except OSError:
            continue
        if name in {program[:15] for program in _PROGRAMS} or name.startswith("kube-"):
            found.append(f"{name} {folder.name}")
    return found
