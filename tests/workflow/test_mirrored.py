"""The run mirror hears of an inline workflow what it would hear of the same writes by hand."""

from contextlib import suppress

import pytest

from askel import App, RedisWorkflowService, Run, RunFailedError, RunMirror

app = App("mirrored")


@app.step(retries=1, retry_delay="1ms")
async def flaky(value, ctx):
    """Fail in the first attempt."""
    if ctx.attempt == 1:
        raise ValueError("not yet")
    return value + 1


@app.step(retries=0)
async def broken(value):
    """Fail."""
    raise ValueError(value)


@app.workflow
async def good(run: Run, value: int) -> int:
    """Two steps and a sleep."""
    value = await run.do("first", flaky, value)
    await run.sleep("rest", "1ms")
    return value


@app.workflow
async def bad(run: Run, value: int) -> None:
    """Fail by a step."""
    await run.do("only", broken, value)


class Notebook:
    """Writes down what it is told."""

    def __init__(self):
        self.told = []

    def __getattr__(self, method):
        if method not in vars(RunMirror):
            raise AttributeError(method)

        async def hear(*given, **named):
            self.told.append((method, *given))

        return hear


@pytest.fixture
async def service(redis_url, prefix):
    made = RedisWorkflowService(redis_url, key_prefix=prefix, mirror=Notebook())
    yield made
    await made.close()


async def told(service, workflow, value):
    notebook = service.mirror._mirror
    with suppress(RunFailedError):
        await app.start(service, workflow, value, run_id="r")
    steps = {step.step_id: step.step_name for step in await service.get_run_steps("r")}
    return [
        (method, steps.get(subject, subject), *[a for a in args if not hasattr(a, "step_id")])
        for method, subject, *args in notebook.told
    ]


async def test_mirror_hears_of_each_step_of_an_inline_run(service):
    heard = await told(service, "good", 1)
    assert [entry for entry in heard if entry[0] != "set_step_error"] == [
        ("create_run", "r", "good", 1),
        ("insert_step_state", "r"),
        ("set_step_running", "first"),
        ("create_retry_attempt", "first", None),
        ("set_step_running", "first"),
        ("set_step_result", "first", 2),
        ("insert_step_state", "r"),
        ("set_step_scheduled", "rest"),
        ("set_step_result", "rest", None),
        ("update_run_status", "r", "completed", 2, None),
    ]
    (error,) = [entry for entry in heard if entry[0] == "set_step_error"]
    assert (error[1], error[2].message) == ("first", "not yet")


async def test_mirror_hears_how_an_inline_run_fails(service):
    heard = await told(service, "bad", 7)
    assert [entry[0] for entry in heard][-2:] == ["set_step_error", "update_run_status"]
    assert heard[-1][2] == "failed"
    assert "7" in heard[-1][4].message
