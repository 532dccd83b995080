"""Every rule on every engine that it declares."""

import catalogue
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tardigrad as td
from tardigrad.core.plain import same_bits
from tardigrad.testing import AnyOrder, CheckedRule, check_engine, check_rule


def suited(rule, engine):
    return type(engine).__name__ not in rule.unsuited


@pytest.mark.parametrize(("rule", "engine"), catalogue.RULES_AND_ENGINES)
def test_replay_equals_the_run_in_every_bit(rule, engine):
    (rule, problem), engine = catalogue.rule_and_problem(rule), catalogue.ENGINES[engine]()
    if not suited(rule, engine):
        pytest.skip("the rule does not declare this engine")
    result = td.run(rule, problem, engine, stop=td.MaxUpdates(40), snapshot_every=5, seed=5)
    assert result.status is td.Status.MAX_UPDATES
    assert np.isfinite(result.x).all()
    replayed = td.replay(result)
    assert replayed.identical, replayed.difference


@pytest.mark.parametrize("engine", catalogue.ENGINE_NAMES)
def test_replicas_replay_in_every_bit(engine, small_problem):
    engine = catalogue.ENGINES[engine]()
    result = td.run(td.AsyncSGD([0.05, 0.1]), small_problem, engine, stop=td.MaxUpdates(40), replicas=3, seed=5)
    assert result.x.shape == (3, 2, 5)
    assert td.replay(result).identical


@pytest.mark.parametrize(("rule", "problem"), catalogue.CASES)
def test_rule_keeps_its_contract(rule, problem):
    check_rule(*catalogue.rule_and_problem(rule, problem))


@pytest.mark.parametrize("engine", catalogue.ENGINE_NAMES)
def test_engine_keeps_its_contract(engine):
    check_engine(catalogue.ENGINES[engine])


@pytest.mark.parametrize("rule", catalogue.ALL_RULES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_order_of_replies_keeps_the_state_valid_and_replays(rule, data):
    engine = AnyOrder(choose=lambda n: data.draw(st.integers(0, n - 1)))
    rule, problem = catalogue.rule_and_problem(rule)
    result = td.run(CheckedRule(rule), problem, engine, stop=td.MaxOracleCalls(30), snapshot_every=1)
    assert np.isfinite(result.x).all()
    assert result.state.version == result.trace.updates <= len(result.trace)
    assert td.replay(result).identical


@pytest.mark.parametrize("engine", catalogue.ENGINE_NAMES)
def test_synchronous_runs_are_the_same_on_every_engine(engine, small_problem):
    rule, engine = td.SyncSGD(0.1, sample=3), catalogue.ENGINES[engine]()
    if not suited(rule, engine):
        pytest.skip("the rule does not declare this engine")
    engines = td.Simulated(td.Constant(1.0)), engine
    states = [td.run(rule, small_problem, each, stop=td.MaxUpdates(20)).state for each in engines]
    assert same_bits(*states)


def test_every_class_of_rules_is_run_on_ray():
    classes = {name: type(catalogue.rule_and_problem(name)[0]) for name in catalogue.ALL_RULES}
    assert {classes[name] for name in catalogue.ON_RAY} == set(classes.values())
