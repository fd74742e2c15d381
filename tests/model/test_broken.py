"""Each rule of the protocol is needed: without it the exploration finds a broken promise."""

import pytest
from tests.model.configurations import BROKEN
from tests.model.explorer import explore


@pytest.mark.parametrize("left_out", BROKEN)
def test_what_is_left_out_is_found_missing(left_out):
    """The same configuration is sound with the rule and broken without it."""
    configuration = BROKEN[left_out]
    explored = explore(configuration.without(left_out))
    assert explored.problem
    assert explored.way
    assert not explore(configuration).problem


def test_the_way_to_a_broken_promise_is_told():
    """The shortest way is printed, one line for each thing that happened."""
    text = str(explore(BROKEN["no-wake"].without("no-wake")))
    assert "run 0 has news and no driver, after:" in text
    assert "worker 0 reads 1 ('start', 0, 'start')" in text
