"""Starting runs and looking at them: what each verb prints, for people and for programs."""

import json
from contextlib import redirect_stdout
from io import StringIO

import anyio
import pytest
from tests.helpers.keys import sync_client
from tests.helpers.waiting import wait_until

from askel import SyncRedisWorkflowService
from askel.state import HistoryEntry
from askeld.cli.show import print_history

ORDER = '{"id": "o-1", "cents": 4200}'
RESULT = {"receipt": "charged 4200", "parcel": "parcel of o-1"}
PATH = [
    ("run", None, "running"),
    ("charge card", 1, "running"),
    ("charge card", 1, "failed"),
    ("charge card", 2, "pending"),
    ("timer", 2, None),
    ("charge card", 2, "running"),
    ("charge card", 2, "succeeded"),
    ("cool off", 1, "scheduled"),
    ("cool off", 1, "succeeded"),
    ("pack", 1, "running"),
    ("pack", 1, "succeeded"),
    ("run", None, "completed"),
]
RUN_MEMBERS = {"id", "workflow", "status", "created_at", "updated_at", "input", "output", "error"}
STEP_MEMBERS = {
    "step_id",
    "step_name",
    "status",
    "rpc_name",
    "data",
    "result",
    "error",
    "attempt_count",
    "retries",
    "retry_delay",
    "created_at",
    "updated_at",
}


def ended(shop, run_id, status=b"completed"):
    with sync_client(shop.url) as redis:
        anyio.run(wait_until, lambda: redis.hget(f"workflows:run:{run_id}", "status") == status)


def test_run_prints_the_result_alone_on_standard_output(shop):
    run_id = shop.new_id()
    ran = shop.run("run", "checkout", ORDER, "--run-id", run_id, "--timeout", "20s")
    assert (ran.code, ran.json(), ran.err) == (0, RESULT, f"run {run_id}\n")
    assert ran.out.count("\n") == 1


def test_run_as_json_prints_the_run_alone(shop):
    ran = shop.run("run", "checkout", ORDER, "--json")
    run = ran.json()
    assert (ran.code, ran.err, ran.out.count("\n")) == (0, "", 1)
    assert run.keys() >= RUN_MEMBERS
    assert (run["workflow"], run["status"], run["output"]) == ("checkout", "completed", RESULT)
    assert (run["input"], run["error"]) == (json.loads(ORDER), None)


@pytest.mark.parametrize("flags", [(), ("--json",)], ids=["plain", "json"])
def test_run_of_a_run_that_fails_says_why_and_exits_with_1(shop, flags):
    ran = shop.run("run", "complains", '"no more paper"', *flags)
    assert ran.code == 1
    if flags:
        assert ran.json()["status"] == "failed"
        assert "no more paper" in ran.json()["error"]["message"]
        return
    announced, why = ran.err.splitlines()
    run_id = announced.removeprefix("run ")
    assert why.startswith(f"askel run: run {run_id} failed: ")
    assert why.endswith("no more paper")
    assert ran.out == ""


def test_an_error_message_of_many_lines_is_told_in_one(shop):
    ran = shop.call("run", "complains", r'"first\nsecond\u001b[31m"')
    assert "\x1b" not in ran.err
    assert ran.err.splitlines()[1].endswith(r"first second\x1b[31m")


def test_run_with_an_app_needs_no_worker(shop):
    run_id = shop.new_id()
    arguments = ("run", "checkout", ORDER, "--app", "tests.apps.kiosk:app", "--run-id", run_id)
    ran = shop.run(*arguments, "--prefix", "inline")
    assert (ran.code, ran.json(), ran.err) == (0, RESULT, "")
    assert shop.call("show", run_id, "--prefix", "inline").code == 0
    assert shop.call("show", run_id).code == 3
    again = shop.run(*arguments, "--prefix", "inline")
    assert again.code == 4
    assert again.complaint.endswith("exists already; choose another --run-id, or leave it out")


def test_start_prints_the_id_of_a_run_that_then_completes(shop):
    ran = shop.run("start", "checkout", "-", stdin=ORDER)
    assert (ran.code, ran.err, ran.out.count("\n")) == (0, "", 1)
    ended(shop, ran.out.strip())
    run_id = shop.new_id()
    assert shop.run("start", "checkout", ORDER, "--run-id", run_id, "--json").json() == {
        "run_id": run_id
    }
    ended(shop, run_id)


def test_the_same_id_starts_one_run(shop):
    command_id = shop.new_id()
    first, second = (shop.call("start", "checkout", ORDER, "--id", command_id) for _ in range(2))
    assert (first.code, second.code, first.out) == (0, 0, second.out)
    ended(shop, first.out.strip())


def test_the_sleep_of_a_run_that_was_cancelled_is_not_awaited_any_more(shop):
    run_id = shop.new_id()
    with SyncRedisWorkflowService(shop.url) as service:
        service.create_run("trip", run_id=run_id)
        service.insert_step_state(run_id, "wait", None)
        assert "not awaited" not in shop.call("show", run_id).out
        service.update_run_status(run_id, "cancelled")
    [line] = [line for line in shop.call("show", run_id).out.splitlines() if "wait" in line]
    assert line.endswith("not awaited any more")


@pytest.mark.parametrize("verb", ["start", "run"])
def test_a_run_id_that_is_taken_is_refused(shop, verb):
    run_id = shop.new_id()
    shop.call("start", "checkout", ORDER, "--run-id", run_id)
    ended(shop, run_id)
    ran = shop.call(verb, "checkout", '{"id": "other"}', "--run-id", run_id)
    assert ran.code == 4
    assert f"{run_id!r} exists already; choose another --run-id, or" in ran.complaint
    assert ("--if-exists" in ran.complaint) is (verb == "start")


def test_if_exists_return_takes_the_run_there_is(shop):
    run_id = shop.new_id()
    for _ in range(2):
        ran = shop.call("start", "checkout", ORDER, "--run-id", run_id, "--if-exists", "return")
        assert (ran.code, ran.out) == (0, f"{run_id}\n")
        ended(shop, run_id)


def test_a_wait_that_is_too_long_exits_with_5(shop, tmp_path):
    run_id, gate = shop.new_id(), tmp_path / "gate"
    ran = shop.call(
        "run", "waits", json.dumps(str(gate)), "--timeout", "300ms", "--json", "--run-id", run_id
    )
    assert ran.code == 5
    assert ran.complaint == (f"askel run: run {run_id!r} has not ended within 0.3 s; it goes on")
    gate.touch()


def test_a_workflow_that_no_worker_has_is_told_when_the_wait_ends(shop):
    ran = shop.call("run", "nonesuch", "1", "--timeout", "300ms", "--json")
    assert ran.code == 5
    assert "no worker has taken run" in ran.complaint
    assert "'nonesuch'" in ran.complaint


def test_who_waits_without_end_is_told_that_no_worker_takes_the_run(shop, monkeypatch):
    monkeypatch.setattr("askeld.cli.start._WONDER_S", 0.1)
    ran = shop.call("run", "nonesuch", "1", "--timeout", "500ms")
    assert ran.code == 5
    announced, hint, end = ran.err.splitlines()
    assert announced.startswith("run ")
    assert hint == end.removeprefix("askel run: ")
    assert hint.startswith("no worker has taken run")


def test_send_puts_any_command_on_the_stream(shop):
    run_id = shop.new_id()
    ran = shop.run("send", "run.start", "workflow", "checkout", "input", ORDER, "run_id", run_id)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.rstrip("\n").replace("-", "").isdigit()
    ended(shop, run_id)
    ran = shop.call(
        "send", "step.execute", "run_id", "x", "step_name", "y", "rpc_name", "z", "--json"
    )
    assert ran.json().keys() == {"entry"}


def test_send_to_a_queue_uses_its_stream(shop):
    other = ("--prefix", "unserved")
    assert shop.call("send", "run.cancel", "run_id", "x", "--queue", "far", *other).code == 0
    assert shop.call("ls", *other).out == "no runs\n"


def test_history_as_json_is_the_list_as_it_stands(shop):
    run_id = shop.new_id()
    shop.call("start", "checkout", ORDER, "--run-id", run_id)
    ended(shop, run_id)
    entries = shop.run("history", run_id, "--json").json()
    assert [
        (entry.get("name", "run") if entry["t"] != "timer" else "timer",
         entry.get("attempt", None if entry["t"] == "run" else 1), entry.get("status"))
        for entry in entries
    ] == PATH  # fmt: skip
    assert all(isinstance(entry["at"], int) for entry in entries)
    assert entries[-1]["output"] == RESULT


def test_history_for_people_has_a_line_for_each_entry(shop):
    run_id = shop.new_id()
    shop.call("start", "checkout", ORDER, "--run-id", run_id)
    ended(shop, run_id)
    ran = shop.run("history", run_id)
    header, *lines = ran.out.splitlines()
    assert header.split("  ")[0] == "#"
    assert len(lines) == len(PATH)
    for line, (what, _, status) in zip(lines, PATH, strict=True):
        assert what in line
        assert (status or "") in line
    assert "the bank did not answer" in ran.out
    assert '"charged 4200"' in ran.out
    assert "until " in ran.out


def test_a_time_tells_the_day_where_that_is_another_one():
    """A sleep of three days does not look as if it were over by now."""
    noon, day = 1_795_348_800_000, 86_400_000
    entries = [
        HistoryEntry(kind="run", at=noon, status="running"),
        HistoryEntry(kind="step", at=noon + 5, name="z", status="scheduled", due=noon + 3 * day),
        HistoryEntry(kind="step", at=noon + 3 * day, name="z", status="succeeded"),
    ]
    with redirect_stdout(StringIO()) as told:
        print_history(entries)
    _, *lines = told.getvalue().splitlines()
    assert [line.split()[1:3] for line in lines] == [
        ["2026-11-22", "12:00:00.000"],
        ["12:00:00.005", "z"],
        ["2026-11-25", "12:00:00.000"],
    ]
    assert lines[1].endswith("until 2026-11-25 12:00:00.000")


def test_history_for_people_tells_what_entries_without_a_status_carry(shop):
    run_id = shop.new_id()
    with SyncRedisWorkflowService(shop.url) as service:
        service.create_run("w", run_id=run_id)
        step = service.insert_step_state(run_id, "choose", None)
        service.set_branch_taken(step.step_id, "left")
        service.set_step_child_run_id(step.step_id, "other")
        service.update_run_state(run_id, "paid", {"cents": 1})

    lines = shop.run("history", run_id).out.splitlines()[-3:]
    details = [line.rstrip().rpartition("  ")[2] for line in lines]
    assert details == ["branch left", "began run other", '{"cents":1}']


def test_show_tells_the_run_and_its_steps(shop):
    run_id = shop.new_id()
    shop.call("start", "checkout", ORDER, "--run-id", run_id)
    ended(shop, run_id)
    both = shop.run("show", run_id, "--json").json()
    assert both.keys() == {"run", "steps"}
    assert both["run"].keys() >= RUN_MEMBERS
    steps = {step["step_name"]: step for step in both["steps"]}
    assert list(steps) == ["charge card", "cool off", "pack"]
    assert all(step.keys() >= STEP_MEMBERS for step in steps.values())
    assert steps["charge card"]["attempt_count"] == 2
    assert steps["pack"]["result"] == "parcel of o-1"
    text = shop.call("show", run_id).out
    assert f"run       {run_id}\n" in text
    assert "completed" in text
    assert any(
        line.split()[:5] == ["charge", "card", "succeeded", "2", "charge"]
        for line in text.splitlines()
    )
    assert "(sleep)" in text


def test_show_of_a_run_without_steps_ends_after_the_run(shop):
    run_id = shop.new_id()
    shop.call("run", "checkout", "3", "--run-id", run_id)
    text = shop.call("show", run_id).out
    assert "error" in text
    assert "STEP" not in text


def test_ls_filters_pages_and_says_how_to_go_on(shop):
    runs = [shop.new_id() for _ in range(3)]
    for number, run_id in enumerate(runs):
        shop.call("run", "complains", str(number), "--run-id", run_id, "--timeout", "20s")
    every = shop.run("ls", "--json", "--workflow", "complains", "--status", "failed").json()
    assert every.keys() == {"runs", "cursor", "unreadable"}
    assert [run["id"] for run in every["runs"]][:3] == runs[::-1]
    assert all(run.keys() >= RUN_MEMBERS for run in every["runs"])
    only = ("--workflow", "complains", "--status", "failed")
    page = shop.call("ls", "--limit", "1", *only)
    header, line = page.out.splitlines()
    assert header.split() == ["RUN", "WORKFLOW", "STATUS", "CREATED", "(UTC)", "INPUT"]
    assert line.split()[0] == runs[2]
    more = page.err.removeprefix("more: askel ").split()
    assert more[0] == "ls"
    assert shop.call(*more).out.splitlines()[1].split()[0] == runs[1]
    assert shop.call(*more, "--json").json()["runs"][0]["id"] == runs[1]
    assert shop.call("ls", "--status", "suspended").out == "no runs\n"


def test_unknown_runs_exit_with_3(shop):
    for verb in ("show", "history"):
        ran = shop.run(verb, "nobody-1")
        assert (ran.code, ran.complaint) == (3, f"askel {verb}: run 'nobody-1' does not exist")
