import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.gateway.routes import node_routes
from bus.gateway.rules.rules import files, manifests, rule_name, to_yaml
from schemas.topics import NAME
from tests.crds import check

GATEWAY = "http://gateway.gleaner.svc:8480"
names = st.from_regex(NAME, fullmatch=True)
nodes = st.dictionaries(names, st.lists(names, max_size=2, unique=True), max_size=4)


@given(nodes=nodes)
@settings(max_examples=30, deadline=None)
def test_every_manifest_fits_kubeedges_schema(nodes):
    """For any node names the manifests are valid under KubeEdge's schemas, and their names are unique."""
    rules = manifests(nodes, GATEWAY)
    for manifest in rules:
        check(manifest)
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in rules]
    assert len(set(names)) == len(names)


@given(nodes=nodes)
@settings(max_examples=30, deadline=None)
def test_the_yaml_can_be_read_back(nodes):
    """A YAML parser returns the manifests."""
    rules = manifests(nodes, GATEWAY)
    assert list(yaml.safe_load_all(to_yaml(rules))) == rules


def test_a_rule_up_forwards_one_exact_topic_to_its_url():
    """A Rule's namespace and topic give the topic name, without wildcards; its URL is the route's."""
    rules = manifests({"edge-1": ["pi-1"]}, GATEWAY)
    by_name = {manifest["metadata"]["name"]: manifest for manifest in rules}
    for route in node_routes("edge-1", ["pi-1"]):
        rule = by_name[rule_name(route)]
        source = rule["spec"]["sourceResource"]
        assert f"{rule['metadata']['namespace']}/{source['topic']}" == route.name
        assert source["node_name"] == "edge-1"
        assert rule["spec"]["targetResource"]["resource"] == f"{GATEWAY}{route.path}"
        assert not set("+#") & set(source["topic"])


def test_endpoints_come_before_the_rules_that_need_them():
    """The manifests list RuleEndpoints first: cloudcore retries a Rule without them only after a while."""
    kinds = [manifest["kind"] for manifest in manifests({"edge-1": []}, GATEWAY)]
    assert kinds == sorted(kinds, key=lambda kind: kind != "RuleEndpoint")


def test_the_gateway_gets_the_same_nodes(tmp_path):
    """The Kustomize folder lists the nodes for the gateway, and all its files."""
    rendered = files({"edge-1": [], "edge-2": []}, GATEWAY)
    assert rendered["nodes.env"] == "NODES=edge-1,edge-2\n"
    folder = yaml.safe_load(rendered["kustomization.yaml"])
    assert {*folder["resources"], *folder["configMapGenerator"][0]["envs"]} == {"rules.yaml", "nodes.env"}


def test_there_is_one_rule_down():
    """There is one Rule downwards for all nodes: the Router looks for a Rule's path anywhere in the URL."""
    rules = manifests({"edge-1": [], "edge-10": []}, GATEWAY)
    down = [rule["spec"] for rule in rules if rule["spec"].get("source") == "rest"]
    assert [spec["targetResource"]["topic"] for spec in down] == ["gleaner/v1"]
