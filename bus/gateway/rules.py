"""KubeEdge's RuleEndpoints and Rules for a list of nodes, as values and as YAML.

Up there is one Rule for each topic of each node, because the Router matches a topic exactly. Down there is
one for everything: the Router looks for a Rule's path anywhere in the URL, so of two Rules for `…/edge-1` and
`…/edge-10` the first may take what is for the other; with a single prefix there is nothing to confuse.

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
    """Return a folder for Kustomize: the Rules, and the list of nodes that the gateway is given.

    Args:
        nodes: The devices of each node whose feedback crosses.
        gateway: URL of the gateway as cloudcore reaches it.
    """
    return {
        "kustomization.yaml": _KUSTOMIZATION,
        "nodes.env": f"NODES={','.join(nodes)}\n",
        "rules.yaml": to_yaml(manifests(nodes, gateway)),
    }


def manifests(nodes: Mapping[str, Sequence[str]], gateway: str) -> list[Manifest]:
    """Return all that a fleet needs: the endpoints first, because a Rule without them waits half a minute.

    Args:
        nodes: The devices of each node whose feedback crosses.
        gateway: URL of the gateway as cloudcore reaches it.
    """
    up = (rule_up(one, gateway) for node, devices in nodes.items() for one in node_routes(node, devices))
    return [*map(endpoint, ENDPOINTS), rule_down(), *up]


def endpoint(kind: str) -> Manifest:
    """Return a RuleEndpoint that is named like its type."""
    return _manifest("RuleEndpoint", kind, {"ruleEndpointType": kind, "properties": {}})


def rule_up(one: Route, gateway: str) -> Manifest:
    """Return the Rule that brings one topic of one node to its URL at the gateway."""
    source = {"topic": one.name.removeprefix(f"{NAMESPACE}/"), "node_name": one.node}
    return _rule(rule_name(one), _EVENTBUS, source, _REST, {"resource": f"{gateway}{one.path}"})


def rule_down() -> Manifest:
    """Return the Rule that takes every topic down: the rest of the path becomes the rest of the topic."""
    return _rule(DOWN_NAME, _REST, {"path": f"/{_DOWN_PATH}"}, _EVENTBUS, {"topic": ROOT})


def rule_name(one: Route) -> str:
    """Return the name of a Rule; a dot is in no name of a topic, so no two share one."""
    return ".".join(("up", one.node, one.topic.kind, *([one.device] if one.device else [])))


def to_yaml(documents: Iterable[Mapping[str, object]]) -> str:
    """Return documents made of nothing but texts and tables as YAML."""
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
            yield f"{indent}{key}: {json.dumps(value)}"  # JSON's texts are YAML's
