"""All that a server wrote down is there to be judged, though it has forgotten it."""

import pytest
from tests.helpers.waiting import wait_until

from askeld.torture.aof import Aof, AofError
from askeld.torture.server import TortureServer
from askeld.torture.soak.archive import Archive


@pytest.fixture
def server(tmp_path, every_binary):
    with TortureServer(tmp_path / "server", fsync="everysec", binary=every_binary) as server:
        yield server


def numbers(aof):
    return [
        int(words[2])
        for transition in Aof(aof).transitions()
        for words in transition
        if words[0] == b"SET"
    ]


async def test_nothing_is_lost_by_rewrites_and_kills(tmp_path, server):
    archive = Archive(server.aof, tmp_path / "kept")
    if not archive.can_be_rewritten:
        pytest.skip("a server with a single file: the soak leaves it as it is")
    for number in range(8):
        with server.client() as client:
            client.set("key", number)
            archive.keep()
            if number % 2:
                client.bgrewriteaof()
                await wait_until(lambda: not _is_rewriting(client))
                archive.keep()
        if number % 3 == 2:
            server.kill()
            server.start()

    assert numbers(archive.finish()) == [*range(8)]
    with pytest.raises(AofError, match="a snapshot of what was there before"):
        numbers(server.aof)  # the server itself has forgotten


async def test_a_file_that_is_never_rewritten_is_judged_as_it_lies(tmp_path, server):
    archive = Archive(server.aof, tmp_path / "kept")
    with server.client() as client:
        for number in range(3):
            client.set("key", number)

    assert numbers(archive.finish()) == [0, 1, 2]


def _is_rewriting(client):
    facts = client.info("persistence")
    return facts["aof_rewrite_in_progress"] or facts["aof_rewrite_scheduled"]
