"""The list of fakeredis' deviations is true: each is asked of the fake and of a server."""

import fakeredis
import pytest
from tests.helpers.fake_deviations import DEVIATIONS, SPOILING

from askel import StoreReplyError
from askel.state import connect

ALL = DEVIATIONS | SPOILING


async def answer(connection, command):
    try:
        return await connection.send(*command)
    except (StoreReplyError, AssertionError) as error:
        return str(error)


def agrees(told, wanted):
    """A text or reply of many lines is known by its beginning."""
    if isinstance(wanted, str | bytes) and isinstance(told, type(wanted)):
        return told.startswith(wanted)
    return told == wanted


@pytest.fixture
async def fake():
    client = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer())
    yield connect(client)
    await client.aclose()


@pytest.fixture
async def real(server):
    connection = connect(server.url)
    yield connection
    await connection.send("DEL", "k")
    await connection.close()


@pytest.mark.parametrize("name", ALL)
async def test_deviation_is_one(fake, real, name):
    one = ALL[name]

    told, meant = await answer(fake, one.command), await answer(real, one.command)

    assert agrees(told, one.fake), "fakeredis has changed: mend the list"
    assert agrees(meant, one.server)
    assert told != meant


async def test_global_of_one_script_spoils_the_next(fake):
    await answer(fake, SPOILING["globals"].command)
    assert "global variables" in await answer(fake, ("EVAL", "return 1", 0))
