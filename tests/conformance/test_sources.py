"""Whatever a rule's `configure` fills in, the rule says where it comes from: reports show it."""

import pytest
from catalogue import ALL_RULES, rule_and_problem

import tardigrad as td
from tardigrad.core.plain import same_bits

KINDS = ("theory: ", "measured: ", "run: ")


def check(rule, problem, concurrency, max_staleness=None):
    configured = rule.configure(problem, concurrency, max_staleness)
    changed = {name for name, value in configured.fields().items() if not same_bits(value, rule.fields()[name])}
    sources = type(rule).sources
    assert changed <= set(sources), f"no source of {changed - set(sources)}"
    assert set(sources) <= set(rule.fields()), "sources of fields that there are not"
    assert all(text.startswith(KINDS) and len(text.partition(": ")[2]) > 3 for text in sources.values())
    return changed


@pytest.mark.parametrize("name", [*ALL_RULES, "EigenPro"])
def test_every_field_that_configure_fills_has_a_source(name):
    rule, problem = rule_and_problem(name)
    check(rule, problem, rule.default_concurrency(problem, 2))


def test_a_step_of_theory_has_one(small_problem):
    rule = td.AsyncBC("theory", horizon=100)
    assert check(rule, small_problem, 3, max_staleness=8) == {"step", "concurrency"}
    assert type(rule).sources["step"].startswith("theory: Theorem")
