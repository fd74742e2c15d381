"""`wait_until` returns what was waited for and fails with what was not."""

import anyio
import pytest
from tests.helpers.waiting import wait_until


async def test_it_returns_the_first_true_value_of_sync_and_async_predicates():
    values = iter([0, None, "there"])
    assert await wait_until(lambda: next(values)) == "there"

    async def answer():
        return 7

    assert await wait_until(answer) == 7


async def test_it_fails_with_the_message():
    with pytest.raises(AssertionError, match=r"not within 0 s: the moon"):
        await wait_until(lambda: False, timeout=0, message="the moon")
    with pytest.raises(AssertionError, match="state 3"):
        await wait_until(lambda: False, timeout=0, message=lambda: f"state {3}")


async def test_a_predicate_that_hangs_is_given_up():
    with pytest.raises(AssertionError, match="sleep_forever"):
        await wait_until(anyio.sleep_forever, timeout=0.02)


async def test_errors_of_the_predicate_go_through():
    def wrong():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await wait_until(wrong)
