"""The protocol keeps its promises in every interleaving of workers and faults that fits in here."""

import os

import pytest
from tests.model.configurations import LARGE, REFUSING, SMALL
from tests.model.explorer import explore

#: What scripts answer when somebody was late, was robbed or comes twice.
REFUSALS = {
    "LOST", "GONE", "FENCED", "CONFLICT", "BUSY", "BEHIND", "TERMINAL", "STALE", "EXISTS", "DUP",
    "ALREADY", "ILLEGAL", "NOTFOUND", "SUSPENDED", "SPENT",
}  # fmt: skip


@pytest.mark.parametrize("configuration", SMALL, ids=lambda one: one.name)
def test_promises_are_kept_everywhere(configuration):
    """No state breaks a promise, and from each of them a way leads to a good end."""
    explored = explore(configuration)
    assert not explored.problem, str(explored)
    assert explored.is_complete
    assert explored.ends


def test_every_refusal_is_met():
    """The configurations are no walk in the park: each answer of a script is given somewhere."""
    met = set()
    for configuration in (one for one in SMALL if one.name in REFUSING):
        met |= set(explore(configuration).answers)
    assert not REFUSALS - met


@pytest.mark.parametrize(
    "configuration",
    LARGE
    if "ASKEL_MODEL" in os.environ
    else [pytest.param(None, marks=pytest.mark.skip("takes minutes: make model"))],
    ids=lambda one: one.name if one else "large",
)
def test_promises_are_kept_in_large_configurations(configuration, capsys):
    """The same with more faults; cut off where memory would not hold it, and said so."""
    explored = explore(configuration, most_states=1_500_000)
    with capsys.disabled():
        print(f"\n{explored}", flush=True)  # noqa: T201 - long work shows progress
    assert not explored.problem, str(explored)
