import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.gateway.routes import node_routes
from bus.gateway.rules import files, manifests, rule_name, to_yaml
from schemas.topics import NAME
from tests.crds import check

GATEWAY = "http://gateway.gleaner.svc:8480"
names = st.from_regex(NAME, fullmatch=True)
nodes = st.dictionaries(names, st.lists(names, max_size=2, unique=True), max_size=4)


@given(nodes=nodes)
@settings(max_examples=30, deadline=None)
def test_every_rule_fits_kubeedges_own_schema(nodes):
    """Whatever the nodes are called, the API server takes the Rules whole, and no two share a name."""
    made = manifests(nodes, GATEWAY)
    for manifest in made:
        check(manifest)
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in made]
    assert len(set(names)) == len(names)


@given(nodes=nodes)
@settings(max_examples=30, deadline=None)
def test_the_yaml_says_what_the_values_say(nodes):
    """A YAML reader gets back the very values."""
    made = manifests(nodes, GATEWAY)
    assert list(yaml.safe_load_all(to_yaml(made))) == made


def test_a_rule_up_joins_one_exact_topic_with_its_own_url():
    """The Router puts the namespace in front of the topic, and tells the target nothing but the URL."""
    made = manifests({"edge-1": ["pi-1"]}, GATEWAY)
    by_name = {manifest["metadata"]["name"]: manifest for manifest in made}
    for one in node_routes("edge-1", ["pi-1"]):
        rule = by_name[rule_name(one)]
        source = rule["spec"]["sourceResource"]
        assert f"{rule['metadata']['namespace']}/{source['topic']}" == one.name
        assert source["node_name"] == "edge-1"
        assert rule["spec"]["targetResource"]["resource"] == f"{GATEWAY}{one.path}"
        assert not set("+#") & set(source["topic"])


def test_endpoints_come_before_the_rules_that_need_them():
    """Cloudcore tries a Rule without its endpoints again only after a while."""
    kinds = [manifest["kind"] for manifest in manifests({"edge-1": []}, GATEWAY)]
    assert kinds == sorted(kinds, key=lambda kind: kind != "RuleEndpoint")


def test_the_gateway_is_given_the_same_nodes(tmp_path):
    """Rules and the gateway's list of nodes come out of one rendering."""
    made = files({"edge-1": [], "edge-2": []}, GATEWAY)
    assert made["nodes.env"] == "NODES=edge-1,edge-2\n"
    folder = yaml.safe_load(made["kustomization.yaml"])
    assert {*folder["resources"], *folder["configMapGenerator"][0]["envs"]} == {"rules.yaml", "nodes.env"}


def test_no_two_rules_down_can_be_confused():
    """The Router looks for a Rule's path anywhere in the URL, so there is one down, however many nodes."""
    made = manifests({"edge-1": [], "edge-10": []}, GATEWAY)
    down = [rule["spec"] for rule in made if rule["spec"].get("source") == "rest"]
    assert [spec["targetResource"]["topic"] for spec in down] == ["gleaner/v1"]
