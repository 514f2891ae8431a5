"""Rules of console/analysis/rule_form.py: the form and the contract have the same bounds."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.analysis.rule_form import changed_fields, read_rules, rule_fields, texts_of
from schemas.policy_rules import Caps, HarvestRules

FIELDS = {field.name: field for field in rule_fields()}


def test_every_rule_is_in_the_form_but_those_that_nobody_sets():
    """A rule that is added to the contract appears without a change here."""
    rules = {name for name in HarvestRules.__struct_fields__ if name != "caps"}
    caps = {f"caps.{name}" for name in Caps.__struct_fields__}
    assert (rules | caps) - FIELDS.keys() == {"hard_confidence", "hard_margin", "usual_audit_share"}
    assert (FIELDS["audit_share"].low, FIELDS["audit_share"].high) == (0, 1)
    assert (FIELDS["near_duplicate_bits"].high, FIELDS["near_duplicate_bits"].whole) == (64, True)
    assert FIELDS["caps.per_day"].default == 10_000


def test_the_form_of_some_rules_gives_the_same_rules():
    """Also class names with an equals sign in them; what is not in the form stays."""
    rules = HarvestRules(
        auto=False,
        audit_share=0.125,
        auto_by_class={"a = b": 0.5, "cat": 1.0},
        quotas={"dog": 3},
        usual_audit_share=0.01,
        caps=Caps(per_minute=7),
    )
    assert read_rules(texts_of(rules), rules) == (rules, [])
    assert changed_fields(HarvestRules(), rules)[0][0] == "auto"


@given(st.sampled_from(sorted(FIELDS)), st.text(max_size=12) | st.floats().map(str) | st.integers().map(str))
def test_what_the_form_accepts_the_contract_accepts(name, text):
    """Any text in any field gives valid rules or names that field."""
    rules, problems = read_rules(texts_of(HarvestRules()) | {name: text}, HarvestRules())
    if rules is None:
        assert [problem.field.name for problem in problems] == [name]
    else:
        assert msgspec.convert(msgspec.to_builtins(rules), HarvestRules) == rules


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("audit_share", "1.5", ""),
        ("audit_share", "nan", ""),
        ("caps.per_day", "-1", ""),
        ("near_duplicate_bits", "3.5", ""),
        ("auto_by_class", "cat = 0.9\ndog", "dog"),
        ("quotas", "dog = many", "dog = many"),
    ],
)
def test_a_value_out_of_bounds_is_named(name, text, line):
    """With the line of a field by class."""
    _, problems = read_rules(texts_of(HarvestRules()) | {name: text}, HarvestRules())
    assert [(problem.field.name, problem.line) for problem in problems] == [(name, line)]
