"""What there is not, or is no more, is not written to: the call is refused, no key is made."""

import pytest
from tests.helpers.state import in_a_hurry
from tests.helpers.twins import WRITES, arrange, twins

from askel import NotFoundError
from askel.state import SystemIds

__all__ = ["in_a_hurry", "twins"]

pytestmark = pytest.mark.allow_keys(r".*")  # twins have prefixes of their own

#: Writes that need something to write to.
NEEDY = [name for name, (need, _) in WRITES.items() if need != "nothing" and "anew" not in name]


@pytest.mark.parametrize("write", NEEDY)
async def test_write_to_what_there_is_not_makes_no_key(redis_server, twins, write):
    """M2."""
    async with twins.made("nothing") as service:
        await refused(service, write)
        assert await twins.state(service) == {}


@pytest.mark.parametrize("write", NEEDY)
async def test_write_to_a_step_that_there_is_not_makes_no_key(redis_server, twins, write):
    async with twins.made("nothing") as service:
        await service.create_run("w", run_id="r")
        before = await twins.state(service)
        if "step" not in write and "retry" not in write and "branch" not in write:
            return
        if write != "insert_step_state":
            await refused(service, write)
            assert await twins.state(service) == before


@pytest.mark.parametrize("write", [name for name in NEEDY if "version" not in name])
async def test_write_to_what_was_deleted_makes_no_key(redis_server, twins, write):
    """M2b."""
    async with twins.made("nothing") as service:
        await arrange(service, WRITES[write][0])
        assert await service.delete_run("r", force=True)
        before = await twins.state(service)
        assert set(before) == {"events", "runs:deleted"}
        await refused(service, write)
        assert await twins.state(service) == before


async def refused(service, write):
    if write.startswith("delete_run"):
        assert await WRITES[write][1](service) is False
        return
    with pytest.raises(NotFoundError):
        await WRITES[write][1](service)


def test_ids_are_unique_in_one_instant(monkeypatch):
    """I5: no two of a hundred thousand, although the clock stands still."""
    monkeypatch.setattr("time.time_ns", lambda: 1_700_000_000_000_000_000)
    ids = SystemIds()

    for make in (ids.run_id, ids.nonce, ids.suffix):
        assert len({make() for _ in range(20_000)}) == 20_000
