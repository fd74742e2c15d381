"""The report on a run: the newest attempt of each step, and how the run ended."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from askel import (
    RunStatus,
    RunStatusReport,
    SerializedError,
    StepReport,
    StepStatus,
    WorkflowRun,
)
from askel.state import build_report, decode_entries, fold_attempts


def moment(at):
    return datetime.fromtimestamp(at / 1_000, UTC)


def run(status="running", **given):
    return WorkflowRun("r", "w", RunStatus(status), moment(10), moment(99), **given)


def report(*entries, of=None):
    decoded = decode_entries(msgspec.json.encode(one) for one in entries)
    return build_report(of or run(), decoded, fold_attempts("r", decoded))


def step(status, attempt=1, at=0, name="s"):
    return {"t": "step", "at": at, "name": name, "status": status, "attempt": attempt}


def of_step(*entries):
    (found,) = report(*entries).steps
    return found


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([step("pending")], ("pending", 1, None)),
        ([step("running")], ("running", 1, None)),
        ([step("pending", at=1), step("succeeded", at=8)], ("succeeded", 1, 7)),
        (
            [step("pending", at=1), step("running", at=3), step("succeeded", at=8)],
            ("succeeded", 1, 5),
        ),
        ([step("pending"), step("failed", at=4), step("pending", 2, 4)], ("pending", 2, 4)),
        # All of one millisecond: the attempt's number decides.
        ([step("failed"), step("pending", 2), step("succeeded", 2)], ("succeeded", 2, 0)),
        # The first attempt was abandoned while it ran.
        (
            [step("running", at=1), step("lost", at=5), step("running", 2, 5)],
            ("running", 2, 4),
        ),
        (
            [step("running", at=1), step("running", 2, 5), step("succeeded", 2, 6)],
            ("succeeded", 2, 1),
        ),
        ([step("running", at=1), step("lost", at=5)], ("failed", 1, 4)),
        # The server's clock was set back.
        ([step("running", at=9), step("succeeded", at=3)], ("succeeded", 1, 0)),
    ],
)
def test_a_step_is_its_newest_attempt(entries, expected):
    status, attempts, milliseconds = expected
    duration = None if milliseconds is None else timedelta(milliseconds=milliseconds)

    assert of_step(*entries) == StepReport("s", StepStatus(status), attempts, duration)


def test_steps_stand_in_the_order_in_which_they_began():
    entries = [step("running", name=name) for name in ("z", "a", "m")]

    assert [one.name for one in report(*entries, step("failed", name="a")).steps] == ["z", "a", "m"]


ENDED = {"output": 1, "error": SerializedError("no")}


@pytest.mark.parametrize(
    ("status", "ended", "output", "error"),
    [
        ("running", None, None, None),
        ("suspended", None, None, None),
        ("stalled", None, None, None),
        ("completed", moment(50), 1, None),
        ("failed", moment(50), None, ENDED["error"]),
        ("cancelled", moment(50), None, ENDED["error"]),
    ],
)
def test_output_error_and_end_are_told_only_where_they_belong(status, ended, output, error):
    last = {"t": "run", "at": 50, "status": status}

    told = report({"t": "run", "at": 10, "status": "running"}, last, of=run(status, **ENDED))

    assert (told.status, told.started_at) == (RunStatus(status), moment(10))
    assert (told.completed_at, told.output, told.error) == (ended, output, error)


def test_end_of_a_run_that_another_program_wrote_is_its_last_change():
    assert report(of=run("completed")).completed_at == moment(99)


def test_plan_is_passed_on():
    told = report(of=run(deterministic=True, planned_steps=[{"name": "a"}]))

    assert (told.deterministic, told.planned_steps) == (True, [{"name": "a"}])


@given(
    st.lists(
        st.builds(
            step,
            st.sampled_from(["pending", "running", "succeeded", "failed", "lost"]),
            st.integers(1, 4),
            st.integers(0, 9),
            st.sampled_from(["a", "b"]),
        )
    )
)
def test_report_tells_of_each_step_once_by_its_highest_attempt(entries):
    told = {one.name: one for one in report(*entries).steps}

    assert list(told) == list(dict.fromkeys(one["name"] for one in entries))
    for name, one in told.items():
        numbers = [entry["attempt"] for entry in entries if entry["name"] == name]
        last = [e for e in entries if (e["name"], e["attempt"]) == (name, max(numbers))][-1]
        assert one.attempts == max(numbers)
        assert one.status == {"lost": "failed"}.get(last["status"], last["status"])
        assert one.duration is None or one.duration >= timedelta()


# On real servers.


@pytest.mark.usefixtures("redis_server")
async def test_report_on_a_run(service):
    await service.create_run("w", run_id="r", deterministic=True, planned_steps=["a"])
    first = await service.insert_step_state("r", "a", "f", None, {"retries": 3})
    await service.set_step_running(first.step_id)
    await service.set_step_error(first.step_id, ValueError("no"))
    await service.create_retry_attempt(first.step_id, "running")
    await service.set_step_result(first.step_id, 1)
    await service.insert_step_state("r", "b", "f")
    run = await service.get_run("r")

    told = await service.get_run_status("r")

    assert told == RunStatusReport(
        id="r",
        status=RunStatus.RUNNING,
        started_at=run.created_at,
        steps=[
            StepReport("a", StepStatus.SUCCEEDED, 2, told.steps[0].duration),
            StepReport("b", StepStatus.PENDING, 1, None),
        ],
        deterministic=True,
        planned_steps=["a"],
    )
    assert told.steps[0].duration >= timedelta()


@pytest.mark.usefixtures("redis_server")
async def test_completed_run_that_was_suspended_reports_no_error(service):
    await service.create_run("w", run_id="r")
    await service.update_run_status("r", "suspended", error=SerializedError("waits"))
    assert (await service.get_run_status("r")).error is None
    await service.update_run_status("r", "running")
    await service.update_run_status("r", "completed", output={"ok": True})

    told = await service.get_run_status("r")

    assert (told.output, told.error) == ({"ok": True}, None)
    assert told.completed_at == (await service.get_run("r")).updated_at
    assert await service.get_run_status("nobody") is None
