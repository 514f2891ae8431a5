"""Generate KubeEdge's RuleEndpoints and Rules for a list of nodes, as values and as YAML.

Source: cloud/pkg/router of KubeEdge 1.23.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from bus.gateway.routes import Route, node_routes
from schemas.topics import ROOT

Manifest: TypeAlias = "dict[str, object]"

API_VERSION = "rules.kubeedge.io/v1"
NAMESPACE, _, _DOWN_PATH = ROOT.partition("/")
ENDPOINTS = (_EVENTBUS, _REST) = ("eventbus", "rest")
DOWN_NAME = "down"
_KUSTOMIZATION = f"""\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: {NAMESPACE}
resources:
  - rules.yaml
configMapGenerator:
  - name: nodes
    envs:
      - nodes.env
"""


def files(nodes: Mapping[str, Sequence[str]], gateway: str) -> dict[str, str]:
    """Return the files of a Kustomize folder by name: the Rules, and the list of nodes for the gateway.

    Args:
        nodes: For each node, the devices whose feedback goes to the cloud.
        gateway: URL of the gateway, as reached from cloudcore.
    """
    return {
        "kustomization.yaml": _KUSTOMIZATION,
        "nodes.env": f"NODES={','.join(nodes)}\n",
        "rules.yaml": to_yaml(manifests(nodes, gateway)),
    }


def manifests(nodes: Mapping[str, Sequence[str]], gateway: str) -> list[Manifest]:
    """Return the RuleEndpoints and Rules of a fleet.

    Args:
        nodes: For each node, the devices whose feedback goes to the cloud.
        gateway: URL of the gateway, as reached from cloudcore.
    """
    # One Rule per topic and node upwards: the Router matches topics exactly.
    up = (rule_up(route, gateway) for node, devices in nodes.items() for route in node_routes(node, devices))
    # Endpoints first: cloudcore retries a Rule without its endpoints only after half a minute.
    return [*map(endpoint, ENDPOINTS), rule_down(), *up]


def endpoint(kind: str) -> Manifest:
    """Return a RuleEndpoint with the name of its type."""
    return _manifest("RuleEndpoint", kind, {"ruleEndpointType": kind, "properties": {}})


def rule_up(route: Route, gateway: str) -> Manifest:
    """Return the Rule that forwards one topic of one node to its URL at the gateway."""
    # The Router prefixes the topic with the Rule's namespace, which is the first level of our topics.
    source = {"topic": route.name.removeprefix(f"{NAMESPACE}/"), "node_name": route.node}
    return _rule(rule_name(route), _EVENTBUS, source, _REST, {"resource": f"{gateway}{route.path}"})


def rule_down() -> Manifest:
    """Return the one Rule downwards, for all nodes and topics: the rest of the URL becomes the topic.

    The Router looks for a Rule's path anywhere in the URL, so of two Rules for `…/edge-1` and `…/edge-10` the
    first might take the messages of the other.
    """
    return _rule(DOWN_NAME, _REST, {"path": f"/{_DOWN_PATH}"}, _EVENTBUS, {"topic": ROOT})


def rule_name(route: Route) -> str:
    """Return the name of a route's Rule; unique, because the names in a topic contain no dots."""
    return ".".join(("up", route.node, route.topic.kind, *([route.device] if route.device else [])))


def to_yaml(documents: Iterable[Mapping[str, object]]) -> str:
    """Return documents that consist of strings and mappings as YAML."""
    return "---\n".join("".join(f"{line}\n" for line in _lines(document, "")) for document in documents)


def _rule(
    name: str, source: str, source_resource: dict[str, str], target: str, target_resource: dict[str, str]
) -> Manifest:
    spec: Manifest = {
        "source": source,
        "sourceResource": source_resource,
        "target": target,
        "targetResource": target_resource,
    }
    return _manifest("Rule", name, spec)


def _manifest(kind: str, name: str, spec: Manifest) -> Manifest:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def _lines(table: Mapping[str, object], indent: str) -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{key}:"
            yield from _lines(value, f"{indent}  ")
        else:
            yield f"{indent}{key}: {json.dumps(value)}"  # a JSON string is valid YAML
