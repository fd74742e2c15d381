"""Where fakeredis answers otherwise than a server: the one list of it.

The fast tests may run on a fake, and so may those of applications. What is in this list they cannot
show; `tests/helpers_tests/test_fake_deviations.py` asks the fake and a server, so that an entry
that is no longer true is noticed.

Not asked there, because it cannot be: a blocking command whose caller was cancelled goes on
blocking in the fake, and takes the next element
(`tests/state/test_connection_fake.py::test_cancelled_command_never_gives_its_reply_to_another`);
there is no memory limit, no replica, no access list and no persistence, so that refusals by a
server (`tests/faults/test_state_refusals.py`) are tried on servers alone.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Deviation:
    """A command that the two answer differently; an error is known by how its text begins."""

    why: str
    command: tuple[str | int, ...]
    fake: object
    server: object


def _script(body: str) -> tuple[str | int, ...]:
    return ("EVAL", body, 1, "k")


DEVIATIONS = {
    "letters beyond ASCII": Deviation(
        "cjson.encode escapes them, so that names in the history are longer; they mean the same",
        _script("return cjson.encode('é')"),
        b'"\\u00e9"',
        '"é"'.encode(),
    ),
    "slashes": Deviation(
        "cjson.encode leaves them as they are",
        _script("return cjson.encode('a/b')"),
        b'"a/b"',
        b'"a\\/b"',
    ),
    "empty tables": Deviation(
        "cjson.encode makes lists of them; askel encodes strings alone",
        _script("return cjson.encode({})"),
        b"[]",
        b"{}",
    ),
    "errors inside scripts": Deviation(
        "they do not name the script and the line",
        _script("redis.call('SET', KEYS[1], 'x') return redis.call('LLEN', KEYS[1])"),
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "WRONGTYPE Operation against a key holding the wrong kind of value script: ",
    ),
    "codes of errors": Deviation(
        "a missing key, a wrong call or an unknown command has no code",
        ("RENAME", "nowhere", "k"),
        "no such key",
        "ERR no such key",
    ),
    "INFO": Deviation(
        "is not there: `init` cannot tell what kind of server it is, and trusts it",
        ("INFO", "server"),
        "unknown command",
        b"# Server",
    ),
    "CONFIG": Deviation(
        "is not there: nor can it tell whether keys are evicted",
        ("CONFIG", "GET", "maxmemory-policy"),
        "unknown command",
        [b"maxmemory-policy", b"noeviction"],
    ),
    "OBJECT": Deviation(
        "is not there: memory is measured on servers alone",
        ("OBJECT", "ENCODING", "k"),
        "unknown command",
        None,
    ),
}

#: Scripts that spoil a fake for those after them: each is tried on one of its own.
SPOILING = {
    "globals": Deviation(
        "a script that sets one is refused, and so is every script after it",
        _script("x = 1 return x"),
        "Script attempted to set global variables",
        "ERR ",
    ),
    "second values": Deviation(
        "a script that returns a call of two values breaks the fake; a server takes the first",
        _script("return string.find('ab', 'b', 1, true)"),
        "Invalid response type",
        2,
    ),
}
