"""The append-only file is read as the servers themselves read it, whatever wrote it."""

import tracemalloc

import pytest
from tests.torture.transcripts import encoded

from askeld.torture.aof import Aof, AofError
from askeld.torture.server import TortureServer

PLAIN = [["SELECT", "0"], ["SET", "a", "1"]]
SCRIPT = [["HSET", "h", "a", "1"], ["RPUSH", "l", "x"]]


def words(*transitions):
    return [[[str(w).encode() for w in c] for c in t] for t in transitions]


def read(path):
    return list(Aof(path).transitions())


@pytest.fixture
def file(tmp_path):
    return tmp_path / "appendonly.aof"


def test_a_transaction_is_one_transition_and_a_command_is_one(file):
    file.write_bytes(encoded(*([c] for c in PLAIN), SCRIPT, [["DEL", "a"]]))
    aof = Aof(file)
    assert list(aof.transitions()) == words(*([c] for c in PLAIN), SCRIPT, [["DEL", "a"]])
    assert (aof.commands, aof.is_cut) == (7, False)


def test_a_file_that_is_cut_anywhere_is_read_up_to_the_last_whole_transition(file):
    """As a server does that loads it: half a transaction is none."""
    first, second = encoded([["SET", "a", "1"]]), encoded(SCRIPT)
    whole = first + second + encoded([["SET", "b", "\r\n#TS:1\r\n*1\r\n"]])
    for at in range(len(whole) + 1):
        file.write_bytes(whole[:at])
        aof = Aof(file)
        expected = (at >= len(first)) + (at >= len(first + second)) + (at == len(whole))
        assert len(list(aof.transitions())) == expected, at
        boundaries = {0, len(first), len(first + second), len(whole)}
        assert aof.is_cut == (at not in boundaries), at


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 1 << 20])
def test_notes_between_commands_are_skipped_and_those_in_payloads_are_not(file, chunk, monkeypatch):
    monkeypatch.setattr("askeld.torture.aof._CHUNK", chunk)
    note = b"#TS:1700000000\r\n"
    payload = "x\r\n#TS:1700000000\r\n#\n##\r\ny"
    parts = [
        encoded([["SET", "a", payload]]),
        encoded(SCRIPT),
        encoded([["SET", "#", "#TS:1\r\n"]]),
    ]
    file.write_bytes(note + note.join(parts) + note)
    assert read(file) == words([["SET", "a", payload]], SCRIPT, [["SET", "#", "#TS:1\r\n"]])
    file.write_bytes(note + note.join(parts) + note[:9])  # a note that is cut
    assert len(read(file)) == 3


def test_what_is_no_command_is_named_with_its_file(file):
    file.write_bytes(encoded([["SET", "a", "1"]]) + b"nonsense\r\n")
    with pytest.raises(AofError, match=r"appendonly\.aof: no command before byte"):
        read(file)


def test_a_cut_in_a_part_before_the_last_is_damage(tmp_path):
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    (folder / "a.manifest").write_text(
        "file a.1.incr.aof seq 1 type i\nfile a.2.incr.aof seq 2 type i\n"
    )
    (folder / "a.1.incr.aof").write_bytes(encoded([["SET", "a", "1"]])[:-3])
    (folder / "a.2.incr.aof").write_bytes(encoded([["SET", "a", "2"]]))
    with pytest.raises(AofError, match="cut in a command, and another part follows"):
        read(tmp_path)


def test_where_there_is_no_file_it_says_so(tmp_path):
    with pytest.raises(AofError, match="is the server's appendonly on"):
        Aof(tmp_path)


def test_a_large_file_is_read_in_little_memory(file):
    with file.open("wb") as out:
        for number in range(400):
            out.write(encoded([["SET", number, "x" * 100_000]]))
    tracemalloc.start()
    try:
        assert sum(1 for _ in Aof(file).transitions()) == 400
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert file.stat().st_size > 40_000_000
    assert peak < 8_000_000


@pytest.fixture
def server(tmp_path, every_binary):
    with TortureServer(tmp_path / "server", binary=every_binary) as server:
        yield server


def test_what_a_server_writes_is_read_in_order(server):
    with server.client() as client:
        if server.aof.joinpath("appendonlydir").is_dir():
            client.config_set("aof-timestamp-enabled", "yes")
        client.set("a", "1")
        script = "redis.call('SET', 'a', 2) redis.call('RPUSH', 'l', 'x', ARGV[1]) return 1"
        client.eval(script, 0, "#TS:\r\n")
        with client.pipeline(transaction=True) as pipe:
            pipe.set("a", "3").set("a", "4")
            pipe.execute()
        names = {b"SET", b"RPUSH"}
        found = [
            [command for command in t if command[0].upper() in names]
            for t in Aof(server.aof).transitions()
        ]
        assert [t for t in found if t] == words(
            [["SET", "a", "1"]],
            [["SET", "a", "2"], ["RPUSH", "l", "x", "#TS:\r\n"]],
            [["SET", "a", "3"], ["SET", "a", "4"]],
        )
    server.kill()
    server.start()
    with server.client() as client:
        client.set("a", "5")
    last = [t for t in Aof(server.aof).transitions() if t[-1][0] == b"SET"][-1]
    assert last == [[b"SET", b"a", b"5"]]


def _rewrite(client):
    client.bgrewriteaof()
    while (
        client.info("persistence")["aof_rewrite_in_progress"]
        or (client.info("persistence")["aof_rewrite_scheduled"])
    ):
        pass


def test_a_rewritten_file_without_a_snapshot_gives_its_state_apart(server):
    with server.client() as client:
        client.config_set("aof-use-rdb-preamble", "no")
        client.rpush("l", "x", "y")
        _rewrite(client)
        client.set("a", "after")
    aof = Aof(server.aof)
    if aof.base is None:  # a single file says nowhere what is state and what came later
        assert [b"RPUSH", b"l", b"x", b"y"] in [c for t in aof.transitions() for c in t]
        return
    assert [b"RPUSH", b"l", b"x", b"y"] in list(aof.base_commands())
    assert [t for t in aof.transitions() if t[0][0] == b"SET"] == [[[b"SET", b"a", b"after"]]]


def test_a_snapshot_that_holds_data_is_refused(server):
    with server.client() as client:
        client.set("a", "1")
        _rewrite(client)
        client.set("a", "2")
    with pytest.raises(AofError, match="begins with a snapshot of what was there before"):
        read(server.aof)
