"""The Prometheus configuration, its alert rules and the Grafana board, by Prometheus' own tools."""

import json
import re
import subprocess

import pytest
import yaml

from bus.observability import metric_catalogue as catalogue
from tests.conftest import ROOT
from tests.prometheus import program

HERE = ROOT / "deploy/observability"
ALERTS = [
    rule["alert"]
    for group in yaml.safe_load((HERE / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
SUFFIXES = re.compile(r"_(bucket|sum|count)$")


def promtool(*words: str) -> None:
    done = subprocess.run(
        [program("promtool"), *words], cwd=HERE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def names_in(text: str) -> set[str]:
    """Return the names of our metrics in PromQL."""
    found = re.findall(r"\b(?:gleaner|messaging|system|process)_\w+", re.sub(r'"[^"]*"', "", text))
    return {SUFFIXES.sub("", name) if "_bucket" in name else name for name in found} - {
        "system_filesystem_state"
    }


def board_queries() -> list[str]:
    """Return each query of the board, with Grafana's variables filled in."""
    board = json.loads((HERE / "grafana-board.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    queries += [one["expr"] for one in board["annotations"]["list"]]
    return [query.replace("$__rate_interval", "1m").replace("$node", ".*") for query in queries]


def test_the_configuration_is_valid():
    """Promtool accepts it, with the rules and the file of targets that it names."""
    promtool("check", "config", "prometheus.yml")


def test_every_alert_fires_when_it_should():
    """The rule tests pass; each alert has a case in which it fires and one in which it does not."""
    promtool("test", "rules", "rules_test.yml")
    cases: dict[str, set[bool]] = {}
    for test in yaml.safe_load((HERE / "rules_test.yml").read_text())["tests"]:
        for case in test["alert_rule_test"]:
            cases.setdefault(case["alertname"], set()).add(bool(case.get("exp_alerts")))
    assert set(cases) == set(ALERTS)
    # A sample that has waited for less than a day is the photo's case.
    assert {name for name, found in cases.items() if found != {True, False}} <= {"GleanerSampleUnanswered"}


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_in_the_runbook(alert):
    """docs/operations.md explains each alert and what to do."""
    assert f"`{alert}`" in (ROOT / "docs/operations.md").read_text()


def test_rules_and_board_use_metrics_that_exist():
    """A renamed metric would silence its alert without an error."""
    known = {metric.shown_name for metric in catalogue.METRICS}
    used = names_in((HERE / "rules.yml").read_text()) | names_in("\n".join(board_queries()))
    assert used - known == set()
    assert len(used) > 20


def test_the_board_is_sound():
    """No two panels share an id or a place, and a data source that a user chooses."""
    board = json.loads((HERE / "grafana-board.json").read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (place["x"] + right, place["y"] + down)
            for right in range(place["w"])
            for down in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(column for column, _ in cells) < 24
        taken |= cells
        assert panel["type"] == "row" or panel["datasource"]["uid"] == "${datasource}"
