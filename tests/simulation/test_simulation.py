"""Five hundred worlds, each by a seed: promises are kept; a rule left out is found missing."""

import hashlib
from collections import Counter
from unittest import mock

import pytest
from msgspec.structs import replace
from tests.simulation.__main__ import told
from tests.simulation.plan import minimised, plan_of
from tests.simulation.world import broken, simulate

from askel.state import load_scripts

FENCED = (
    "if not open or s[2] ~= attempt or (nonce ~= '' and s[3] ~= nonce) then return { 'FENCED' } end"
)
SEEDS = 500
TOGETHER = 25

#: What is left out of a script, and a seed that finds it missing.
MUTATIONS = {
    "ids are forgotten": ("record", "if ids and (ids[1] or ids[2]) then", "if false then", 24),
    "timers fire early": ("fire", "if due and tonumber(due) <= now then", "if true then", 4),
    "an outcome is written again": ("complete", FENCED, "", 4),
    "a run has no token": ("start", "'token', entry, 'start', entry", "'start', entry", 5),
    "XACK's answer is ignored": (
        "record",
        "if drop(stream, group, entry) == 0",
        "if drop(stream, group, entry) == 2",
        80,
    ),
}


def without(script, text, instead):
    """Return all scripts, with something left out of one."""
    scripts = dict(load_scripts())
    whole = scripts[script]
    assert text in whole.body
    body = whole.body.replace(text, instead)
    scripts[script] = replace(whole, body=body, sha=hashlib.sha1(body.encode()).hexdigest())
    return mock.patch("askel.state.store.scripts.load_scripts", return_value=scripts)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, TOGETHER))
def test_every_promise_is_kept(first):
    """What breaks one is printed with the smallest plan that does."""
    counts = Counter()
    for seed in range(first, first + TOGETHER):
        plan = plan_of(seed)
        problem = broken(plan)
        assert not problem, told(plan, problem)
        counts += simulate(plan).counts if seed == first else Counter()
    assert counts["attempts running"]


def test_a_seed_is_one_world():
    """The same seed gives the same events at the same moments, to the last one."""
    first, second = simulate(plan_of(7)), simulate(plan_of(7))
    assert first.trace == second.trace
    assert first.counts == second.counts
    assert simulate(plan_of(8)).trace != first.trace


@pytest.mark.slow
@pytest.mark.parametrize("left_out", MUTATIONS)
def test_a_rule_that_is_left_out_is_found_missing(left_out):
    """The seed keeps every promise with the rule, and breaks one without it."""
    *mutation, seed = MUTATIONS[left_out]
    assert not broken(plan_of(seed))
    with without(*mutation):
        assert broken(plan_of(seed))


@pytest.mark.slow
def test_a_plan_that_breaks_a_promise_is_made_small():
    """What is printed has one run, hardly anything that happens to it, and tells the story."""
    *mutation, seed = MUTATIONS["ids are forgotten"]
    plan = plan_of(seed)
    with without(*mutation):
        smallest = minimised(plan, broken)
        text = told(smallest, "command-twice")
    assert len(smallest.programs) == 1
    assert len(smallest.events) + len(smallest.faults) < len(plan.events) + len(plan.faults)
    assert str(smallest) in text
    assert "start -> OK" in text
    assert text.startswith("command-twice")


def test_faults_bite():
    """Workers are robbed, attempts are lost, replies and copies come too late."""
    counts = sum((simulate(plan_of(seed)).counts for seed in range(12)), Counter())
    for what in ("kill", "freeze", "drain", "attempts lost", "attempts failed", "LOST", "GONE"):
        assert counts[what], what
