"""Runs that retention has deleted are judged like those that are left."""

import pytest
from tests.torture.transcripts import encoded, key, legal

from askeld.torture.client_log import ClientLog
from askeld.torture.judge import judge

STEM = ("run", "ctl", "history", "steps")


@pytest.fixture
def log(tmp_path):
    with ClientLog(tmp_path / "client.jsonl") as log:
        yield log


async def judged(tmp_path, log, story, expected):
    path = tmp_path / "appendonly.aof"
    path.write_bytes(encoded(*story.values()))
    log.write("start-1", "run.start", "r", "invoke", expected=expected)
    log.write("start-1", "run.start", "r", "ok", entry="1-0")
    return await judge(path, None, "p", log)


def deletion():
    keys = [key(kind, "r") for kind in STEM]
    return [["DEL", *keys, key("step", "r", "a"), key("step", "r", "b"), key("step", "r", "rest")]]


async def test_what_a_deleted_run_had_returned_is_compared(tmp_path, log):
    story = {**legal(), "deleted": deletion()}

    good = await judged(tmp_path, log, story, expected=15)
    assert good.by_kind == {}
    assert (good.runs, good.deleted) == (0, {"completed": 1})


async def test_a_wrong_result_is_found_though_the_run_is_gone(tmp_path, log):
    found = await judged(tmp_path, log, {**legal(), "deleted": deletion()}, expected=16)

    assert found.by_kind == {"wrong_outcome": 1}


async def test_a_run_that_was_deleted_before_its_end_is_counted_so(tmp_path, log):
    story = legal()
    names = [*story]
    for name in names[names.index("passive") + 1 :]:
        del story[name]

    found = await judged(tmp_path, log, {**story, "deleted": deletion()}, expected=15)

    assert found.deleted == {"running": 1}
