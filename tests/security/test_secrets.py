"""Passwords and payloads stand in no log, message, `repr` or list of processes.

Every verb and a worker at debug level run with a password in the address, and in a file; what they
and the processes that they start print, log and are called is searched for it.
"""

from __future__ import annotations

import gc
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from tests.helpers.cli import ASKEL, Ran, environment
from tests.helpers.keys import delete_all, sync_client
from tests.helpers.waiting import wait_until
from tests.helpers.workers import WorkerProcess

import askel
from askel import (
    AskelError,
    Client,
    RedisWorkflowService,
    StreamQueue,
    SyncRedisWorkflowService,
)
from askel.state import connect
from askel.wire import DeadLetters
from askeld.cli import VERBS
from askeld.config import WorkerConfig
from askeld.embedded import EmbeddedServer

SECRET = "s3cret/w0rd@#?"
QUOTED = quote(SECRET, safe="")
#: What is left of it in any spelling.
PARTS = ("s3cret", "w0rd")
MARK = "p4yl0ad-of-somebody"
APP = "tests.apps.kiosk:app"
PREFIX = "secrets"

#: By verb: its arguments, and whether it is there to show payloads.
CALLS: dict[str, list[tuple[str, bool]]] = {
    "start": [(f'checkout {{"id":"{MARK}"}} --run-id s1', False)],
    "run": [('complains "x" --timeout 20s', True), ("nonesuch 1 --timeout 100ms", False)],
    "send": [(f"run.signal run_id x name n data {MARK}", True), ("run.cancel run_id x", False)],
    "show": [("r", True), ("nonesuch", False)],
    "history": [("r", True)],
    "why": [("r", False), ("nonesuch", False)],
    "ls": [("", True)],
    "health": [("--http 127.0.0.1:1", False)],
    "doctor": [("", False), ("--json", False)],
    "dead": [("ls", True), ("redrive --all --yes", False), ("drop 1-1", False)],
    "retention": [("", False), ("set checkout --ttl 7d", False)],
    "reindex": [("--json", False)],
    "acl": [("--role worker --password-file {file}", False), ("--json", False)],
    "torture": [("--runs 2 --seconds 1 --faults nonesuch", False)],
    "soak": [("--minutes none", False)],
    "demo": [("--runs 2", False)],
    "worker": [("nowhere:app", False), (f"{APP} --max-payload none", False)],
    "dev": [("nowhere:app", False)],
}


@pytest.fixture(scope="module")
def guarded() -> Iterator[EmbeddedServer]:
    options = {"appendonly": "no", "requirepass": SECRET}
    with EmbeddedServer(port=0, options=options) as server:
        yield server
        with sync_client(server.url) as client:
            delete_all(client)


@pytest.fixture
def addresses(guarded, tmp_path):
    """The ways to say where Redis is and how to log in, as variables."""
    (tmp_path / "password").write_text(f"{SECRET}\n")
    bare = f"redis://127.0.0.1:{guarded.port}"
    return {
        "in the URL": {"REDIS_URL": guarded.url},
        "a password file": {"REDIS_URL": bare, "REDIS_PASSWORD_FILE": str(tmp_path / "password")},
    }


def leaks(text: str, *, payloads: bool = False) -> list[str]:
    """Return the lines with a secret in them, or with a payload where that is none to show."""
    words = PARTS if payloads else (*PARTS, MARK)
    return [line for line in text.splitlines() if any(word in line for word in words)]


@contextmanager
def process_list() -> Iterator[set[str]]:
    """Look at the command lines of all processes until left; provide those that leak."""
    found: set[str] = set()
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.01):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue
                # The guarded server is started with it, by this test: as nobody else should.
                if leaks(line, payloads=True) and "--requirepass" not in line:
                    found.add(line)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def run(verb: str, arguments: list[str], folder: Path, **env: str) -> Ran:
    done = subprocess.run(
        [ASKEL, verb, *arguments],
        cwd=folder,
        env=environment(ASKEL_PREFIX=PREFIX, ASKEL_TRACEBACK="1", **env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_every_verb_is_looked_at():
    assert CALLS.keys() == VERBS.keys()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["in the URL", "a password file"])
async def test_nothing_leaks_from_a_worker_and_the_verbs_beside_it(
    guarded, addresses, tmp_path, how
):
    env = addresses[how]
    file = str(tmp_path / "password")
    with process_list() as called, sync_client(guarded.url) as admin:
        async with WorkerProcess(
            APP,
            redis_url=env.get("REDIS_URL", ""),
            prefix=PREFIX,
            directory=tmp_path,
            args=("--log-level", "debug", "--http", "off"),
            env=env,
        ) as worker:
            await worker.wait_ready()
            fields = {"type": "run.start", "run_id": "r"}
            admin.xadd(
                f"{PREFIX}:commands", {**fields, "workflow": "complains", "input": f'"{MARK}"'}
            )
            admin.xadd(f"{PREFIX}:commands", {"type": MARK, "input": MARK, "run_id": "r"})
            key = f"{PREFIX}:run:r"
            await wait_until(lambda: admin.hget(key, "status") == b"failed", 20)
            for verb, calls in CALLS.items():
                for text, shows in calls:
                    words = [word.replace("{file}", file) for word in text.split()]
                    ran = run(verb, words, tmp_path, **env)
                    assert leaks(ran.out + ran.err, payloads=shows) == [], (verb, text)
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            admin.xadd(f"{PREFIX}:commands", {**fields, "run_id": "r2", "workflow": "complains"})
            await wait_until(lambda: admin.exists(f"{PREFIX}:run:r2"), 20)
            worker.terminate()
            assert await worker.wait() == 0
            assert leaks(worker.output()) == []
        delete_all(admin)
    assert called == set()


#: Verbs that need no Redis, or start one of their own whatever address is given.
OWN_REDIS = {"acl", "health", "soak"}
#: Verbs that start processes or change what this one logs.
PROCESSES = {"worker", "dev", "demo", "torture", "soak"}


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in OWN_REDIS])
def test_nothing_leaks_when_redis_refuses_or_is_away(guarded, tmp_path, call, verb):
    """The messages, and the tracebacks that ASKEL_TRACEBACK shows."""
    wrong = f"redis://:{QUOTED}-wrong@127.0.0.1:{guarded.port}"
    away = f"redis://ann:{QUOTED}@127.0.0.1:1"
    garbled = f"redis://ann:{SECRET}@127.0.0.1:{guarded.port}"
    (text, _) = CALLS[verb][0]
    words = {"worker": [APP], "dev": [APP], "torture": ["--runs", "1"]}.get(verb, text.split())
    for url in (wrong, garbled) if verb in PROCESSES else (wrong, away, garbled):
        if verb in PROCESSES:
            own = (
                ["--faults", "kill9", "--redis", url] if verb == "torture" else []
            )  # asks no variable
            ran = run(verb, [*words, *own], tmp_path, REDIS_URL=url)
        else:
            ran = call(verb, *words, REDIS_URL=url, ASKEL_TRACEBACK="1")
        assert ran.code != 0, (url, ran)
        assert leaks(ran.out + ran.err) == []


def reached(roots: list[object], depth: int = 12) -> list[object]:
    """Return every object of this package, or of redis-py, that the roots hold."""
    seen: dict[int, object] = {}
    level = roots
    for _ in range(depth):
        level = [
            each
            for each in gc.get_referents(*level)
            if id(each) not in seen and not isinstance(each, type) and not callable(each)
        ]
        seen.update((id(each), each) for each in level)
    held = [*roots, *seen.values()]
    return [each for each in held if type(each).__module__.partition(".")[0] in {"askel", "askeld"}]


def test_no_repr_of_anything_that_holds_an_address(tmp_path):
    """Of what is exported, and of all that it is made of."""
    url = f"redis://ann:{QUOTED}@127.0.0.1:1/0"
    (tmp_path / "url").write_text(url)
    (tmp_path / "password").write_text(SECRET)
    shown = []
    for given in (
        url,
        f"file://{tmp_path}/url",
        {"port": 1, "password": SECRET},
        {"port": 1, "password_file": str(tmp_path / "password")},
        redis.asyncio.Redis(password=SECRET),
        f"redis+sentinel://ann:{QUOTED}@127.0.0.1:1,127.0.0.1:2/main",
    ):
        roots: list[object] = [
            RedisWorkflowService(given),
            SyncRedisWorkflowService(given),
            Client(given),
            StreamQueue(given),
            DeadLetters(given),
            connect(given),
        ]
        if isinstance(given, str):
            roots.append(WorkerConfig(url=given))
        objects = reached(roots)
        assert len(objects) > len(roots)
        shown += [form(one) for one in objects for form in (repr, str)]
    assert [text for text in shown if any(part in text for part in PARTS)] == []


def test_every_exported_class_that_takes_an_address_is_among_them():
    takers = {
        name
        for name in askel.__all__
        if isinstance(kind := getattr(askel, name), type)
        and "connection" in getattr(kind.__init__, "__annotations__", {})
    }
    services = {"RedisWorkflowService", "SyncRedisWorkflowService"}
    assert takers == {"Client", "DeadLetters", "StreamQueue", *services}


@pytest.mark.parametrize("command", [("NOPE", MARK, SECRET), ("HSET", "k", MARK)])
async def test_errors_of_redis_repeat_no_arguments(guarded, command):
    connection = connect(guarded.url)
    with pytest.raises(AskelError) as failed:
        await connection.send(*command)
    await connection.close()
    assert leaks(f"{failed.value!s} {failed.value!r}") == []
