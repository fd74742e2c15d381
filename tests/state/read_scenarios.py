"""Scenarios of the reads of whole runs and of versions: how each answer comes about."""

import pytest
from tests.state.scenarios import answers

from askel import VersionNotFoundError


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
