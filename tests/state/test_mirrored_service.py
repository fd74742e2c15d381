"""What a service tells its run mirror: each write after it landed, with the same identifiers."""

import inspect

import pytest
from tests.helpers.state import snapshot

from askel import (
    AskelError,
    RedisWorkflowService,
    RunMirror,
    RunStatus,
    SerializedError,
    StepStatus,
    VersionStatus,
)

pytestmark = pytest.mark.usefixtures("server")


class Notebook:
    """A mirror that writes down what it is told, and looks whether the write has landed."""

    def __init__(self, redis):
        self._redis = redis
        self.told = []
        self.keys = 0

    def __getattr__(self, method):
        if method not in vars(RunMirror):
            raise AttributeError(method)

        async def hear(*given, **named):
            self.keys = await self._redis.dbsize()
            inspect.signature(vars(RunMirror)[method]).bind(self, *given, **named)
            self.told.append((method, *given, *named.values()))

        return hear


@pytest.fixture
def notebook(redis):
    return Notebook(redis)


@pytest.fixture
async def mirrored(redis_url, prefix, notebook):
    service = RedisWorkflowService(redis_url, key_prefix=prefix, mirror=notebook)
    yield service
    await service.close()


async def test_every_write_is_told_with_its_identifiers(mirrored, notebook):
    error = SerializedError("no", name="ValueError")
    await mirrored.create_run("w", {"n": 1}, run_id="r", graph_hash="h")
    step = await mirrored.insert_step_state("r", "s", "f", 1)
    await mirrored.set_step_scheduled(step.step_id)
    await mirrored.set_step_running(step.step_id)
    await mirrored.set_step_error(step.step_id, ValueError("no"))
    again = await mirrored.create_retry_attempt(step.step_id, "running")
    await mirrored.set_step_child_run_id(step.step_id, "kid")
    await mirrored.set_branch_taken(step.step_id, "left")
    await mirrored.set_step_result(step.step_id, [2])
    await mirrored.update_run_state("r", "x", 3)
    await mirrored.update_run_status("r", "completed", output="done")
    await mirrored.upsert_workflow_version("w", "h", {"g": 1}, "dsl")
    await mirrored.update_workflow_version_status("w", "h", "declined")

    assert notebook.told == [
        ("create_run", "r", "w", {"n": 1}, False, "h", None, False, None),
        ("insert_step_state", "r", step),
        ("set_step_scheduled", step.step_id),
        ("set_step_running", step.step_id),
        ("set_step_error", step.step_id, error),
        ("create_retry_attempt", step.step_id, again),
        ("set_step_child_run_id", step.step_id, "kid"),
        ("set_branch_taken", step.step_id, "left"),
        ("set_step_result", step.step_id, [2]),
        ("update_run_state", "r", "x", 3),
        ("update_run_status", "r", RunStatus.COMPLETED, "done", None),
        ("upsert_workflow_version", "w", "h", {"g": 1}, "dsl", VersionStatus.ACTIVE),
        ("update_workflow_version_status", "w", "h", VersionStatus.DECLINED),
    ]
    assert (again.step_name, again.status) == ("s", StepStatus.RUNNING)


async def test_write_has_landed_when_it_is_told(mirrored, notebook, redis):
    before = await redis.dbsize()

    await mirrored.create_run("w", run_id="r")

    assert notebook.keys == await redis.dbsize() > before


async def test_write_that_failed_is_not_told(mirrored, notebook):
    await mirrored.create_run("w", run_id="r")
    step = await mirrored.insert_step_state("r", "s", "f")
    await mirrored.set_step_result(step.step_id, 1)
    notebook.told.clear()

    for call in (
        lambda: mirrored.create_run("w", 2, run_id="r"),
        lambda: mirrored.insert_step_state("r", "s", "another"),
        lambda: mirrored.set_step_running(step.step_id),
        lambda: mirrored.set_step_result(step.step_id, 2),
        lambda: mirrored.create_retry_attempt(step.step_id),
        lambda: mirrored.update_run_status("nobody", "failed"),
        lambda: mirrored.set_step_result(step.step_id, float("nan")),
        lambda: mirrored.update_run_state("nobody", "x", 1),
        lambda: mirrored.update_workflow_version_status("w", "h", "active"),
    ):
        with pytest.raises(AskelError):
            await call()
    assert notebook.told == []


async def test_call_that_found_its_write_done_is_told_again(mirrored, notebook):
    """So that a mirror learns of a write whose process ended before it could say so."""
    await mirrored.create_run("w", run_id="r")
    step = await mirrored.insert_step_state("r", "s", "f")
    for _ in range(2):
        await mirrored.set_step_result(step.step_id, 1)

    assert notebook.told[-2:] == [("set_step_result", step.step_id, 1)] * 2


class Broken(RunMirror):
    """A mirror that cannot take anything."""

    def __getattribute__(self, name):
        raise SystemExit(name)


async def test_broken_mirror_changes_nothing(redis_url, prefix, service, redis, caplog):
    broken = RedisWorkflowService(redis_url, key_prefix=prefix, mirror=Broken())

    await broken.create_run("w", run_id="r")
    step = await broken.insert_step_state("r", "s", "f")
    await broken.set_step_result(step.step_id, 1)
    await broken.update_run_status("r", "completed", output=2)
    await broken.close()

    assert (await service.get_run("r")).output == 2
    assert (await service.get_step_state("r", "s")).result == 1
    assert len(caplog.records) == 4
    assert await snapshot(redis, prefix)
