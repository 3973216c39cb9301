import re

import pytest

from inbol_jax.responses.refusal import is_refusal
from inbol_jax.responses.refusal_exceptions import FILLERS, REASONS, REPORTS, VENTURES
from inbol_jax.responses.refusal_rules import ANYWHERE, AT_START

# Of each group: what stands around an example, and whether the whole is then a refusal.
GROUPS = (
    (FILLERS, "{}, I don't know.", True),
    (VENTURES, "I don't know, {}.", False),
    (REASONS, "{}. I don't know.", True),
    (REPORTS, "{}", False),
)
CASES = [
    pytest.param(
        rule, text.format(example), refusal is (name == "examples"), id=f"{rule.name}: {example}"
    )
    for rules, text, refusal in GROUPS
    for rule in rules
    for name in ("examples", "counterexamples")
    for example in getattr(rule, name)
]


@pytest.mark.parametrize(("rule", "text", "refusal"), CASES)
def test_an_example_decides_what_its_surroundings_do_not(rule, text, refusal):
    assert is_refusal(text) is refusal


@pytest.mark.parametrize(
    ("rules", "match"),
    [(FILLERS, re.fullmatch), (VENTURES, re.match), (REASONS, re.search), (REPORTS, re.search)],
)
def test_a_rule_matches_its_examples_and_not_its_counterexamples(rules, match):
    for rule in rules:
        assert all(match(rule.pattern, text) for text in rule.examples), rule.name
        if rules is not REPORTS:  # a counterexample of which reports behind the refusal
            assert not any(match(rule.pattern, text) for text in rule.counterexamples), rule.name


def test_names_are_unique():
    names = [
        rule.name
        for rules in (ANYWHERE, AT_START, *(group[0] for group in GROUPS))
        for rule in rules
    ]
    assert len(set(names)) == len(names)
