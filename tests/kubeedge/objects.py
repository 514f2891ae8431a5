"""Objects of Kubernetes and KubeEdge as JSON."""

from tests.kubeedge.api import Thing

NAMESPACES = "/api/v1/namespaces"
NODES = "/api/v1/nodes"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
TOKEN = f"{NAMESPACES}/kubeedge/secrets/tokensecret"


def rules_path(namespace: str) -> str:
    """Return the API path of the Rules of a namespace."""
    return f"/apis/rules.kubeedge.io/v1/namespaces/{namespace}/rules"


def endpoints_path(namespace: str) -> str:
    """Return the API path of the RuleEndpoints of a namespace."""
    return f"/apis/rules.kubeedge.io/v1/namespaces/{namespace}/ruleendpoints"


def namespace_object(name: str) -> Thing:
    """Return a namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def node_object(name: str) -> Thing:
    """Return an edge node with the labels that keadm sets."""
    labels = {
        "kubernetes.io/hostname": name,
        "node-role.kubernetes.io/edge": "",
        "node-role.kubernetes.io/agent": "",
    }
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def endpoint_object(kind: str) -> Thing:
    """Return a rule endpoint named after its kind, `rest` or `eventbus`."""
    return {
        "apiVersion": "rules.kubeedge.io/v1",
        "kind": "RuleEndpoint",
        "metadata": {"name": kind},
        "spec": {"ruleEndpointType": kind, "properties": {}},
    }


def uplink_rule(name: str, *, node: str, topic: str, url: str) -> Thing:
    """Return a Rule that posts messages of a node's topic, given without its first level, to a URL."""
    return _rule(name, "eventbus", {"topic": topic, "node_name": node}, "rest", {"resource": url})


def downlink_rule(name: str, *, path: str, topic: str) -> Thing:
    """Return a Rule that publishes requests to `/{node}/{namespace}{path}` on a topic of that node."""
    return _rule(name, "rest", {"path": path}, "eventbus", {"topic": topic})


def _rule(name: str, source: str, of: dict[str, str], target: str, to: dict[str, str]) -> Thing:
    return {
        "apiVersion": "rules.kubeedge.io/v1",
        "kind": "Rule",
        "metadata": {"name": name},
        "spec": {"source": source, "sourceResource": of, "target": target, "targetResource": to},
    }
