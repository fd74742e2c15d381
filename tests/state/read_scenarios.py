"""Scenarios of the reads of whole runs and of versions: how each answer comes about."""

import pytest
from tests.helpers.waiting import wait_until
from tests.state.scenarios import answers

from askel import DeadLetters, VersionNotFoundError
from askel.state import read_facts
from askel.wire import DeadLetter, NotRedrivableError


@answers("read_run", "OK")
async def _(w):
    await w.step()
    return lambda: w.service.get_run_status("r")


@answers("read_run", "NOTFOUND")
async def _(w):
    return lambda: w.service.get_run_status("r")


@answers("read_steps", "OK")
async def _(w):
    await w.step()
    return lambda: w.service.get_step_instances("r")


def stored(w, source="dsl"):
    return lambda: w.service.upsert_workflow_version("w", "h", {"n": 1}, source)


@answers("upsert_version", "OK")
async def _(w):
    return stored(w)


@answers("upsert_version", "ALREADY")
async def _(w):
    await stored(w)()
    return stored(w)


@answers("upsert_version", "EXISTS")
async def _(w):
    await stored(w)()
    return stored(w, "graph")


def declined(w):
    return lambda: w.service.update_workflow_version_status("w", "h", "declined")


@answers("move_version", "OK")
async def _(w):
    await stored(w)()
    return declined(w)


@answers("move_version", "ALREADY")
async def _(w):
    await stored(w)()
    await declined(w)()
    return declined(w)


@answers("move_version", "NOTFOUND")
async def _(w):
    async def refused():
        with pytest.raises(VersionNotFoundError):
            await declined(w)()

    return refused


def letters(w):
    made = DeadLetters("redis://127.0.0.1:1", w.keys.prefix)
    made._scripts = w.scripts
    return made


async def letter(w):
    """Have a command that was buried; return its letter."""
    entry = await w.entry("type", "run.signal", "run_id", "r", "reason", "own")
    await w.recording.bury(entry, "run_not_found", "why")
    (found,) = (await letters(w).list()).letters
    return found


@answers("list_dead", "OK")
async def _(w):
    await letter(w)
    return lambda: letters(w).list(reason="run_not_found")


@answers("redrive", "OK")
async def _(w):
    found = await letter(w)
    return lambda: letters(w).redrive(found)


@answers("redrive", "GONE")
async def _(w):
    found = await letter(w)
    await letters(w).drop(found.id)
    return lambda: letters(w).redrive(found)


@answers("redrive", "OTHER")
async def _(w):
    found = await letter(w)
    moved = DeadLetter(
        found.id, "", "", w.keys.commands("q"), "5-1", 1, None, type="run.signal", run_id="r"
    )

    async def refused():
        with pytest.raises(NotRedrivableError):
            await letters(w).redrive(moved)

    return refused


@answers("redrive", "FORMER")
async def _(w):
    await w.run()
    found = await letter(w)

    async def later():
        seconds, microseconds = await w.redis.time()
        return seconds * 1_000 + microseconds // 1_000 > int(found.entry.split("-")[0])

    await wait_until(later)
    await w.service.create_run("w", run_id="r", if_exists="terminate-existing")

    async def refused():
        with pytest.raises(NotRedrivableError, match="was made anew"):
            await letters(w).redrive(found)

    return refused


def facts(w):
    return lambda: read_facts(w.scripts, w.keys, "r")


@answers("read_facts", "OK")
async def _(w):
    await w.begun_run()
    return facts(w)


@answers("read_facts", "NOTFOUND")
async def _(w):
    return facts(w)
