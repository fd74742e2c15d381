"""Random calls of both sides on one run: after each, both tell the same of it (contract C.5 d)."""

import random

import pytest
from tests.helpers.pikku import js_error

from askel import ConflictError, IllegalTransitionError

pytestmark = [
    pytest.mark.usefixtures("redis_server"),
    pytest.mark.allow_keys(r".*:step-history:.+"),
]

#: What Node does only when it makes sense: nothing in Node would refuse it.
NODE = {
    "setStepScheduled": {"pending"},
    "setStepRunning": {"pending", "scheduled"},
    "setStepResult": {"pending", "scheduled", "running"},
    "setStepError": {"pending", "scheduled", "running"},
    "createRetryAttempt": {"failed"},
}
PYTHON = (
    "set_step_scheduled",
    "set_step_running",
    "set_step_result",
    "set_step_error",
    "create_retry_attempt",
)


async def node_move(pikku, dice, step):
    calls = [name for name, sources in NODE.items() if str(step.status) in sources]
    if not calls:
        return
    name = dice.choice(calls)
    more = {
        "setStepResult": [{"n": dice.random()}],
        "setStepError": [js_error(f"e{dice.random()}", code="C")],
        "createRetryAttempt": [dice.choice(["pending", "running"])],
    }
    await getattr(pikku.service, name)(step.step_id, *more.get(name, []))


async def python_move(service, dice, step):
    name = dice.choice(PYTHON)
    more = {"set_step_result": [{"p": [dice.random()]}], "set_step_error": [ValueError("p")]}
    try:
        await getattr(service, name)(step.step_id, *more.get(name, []))
    except (IllegalTransitionError, ConflictError):
        return  # the state machine refuses it, whoever made the last move


async def told_by_both(service, pikku, run_id):
    theirs = await pikku.service.getRunHistory(run_id)
    ours = await service.get_run_history(run_id)
    return (
        sorted(
            (
                one["stepName"],
                one["attemptCount"],
                one["status"],
                str(one.get("result")),
                one.get("error", {}).get("message"),
            )
            for one in theirs
        ),
        sorted(
            (
                one.step_name,
                one.attempt_count,
                str(one.status),
                str(one.result),
                one.error and one.error.message,
            )
            for one in ours
        ),
    )


@pytest.mark.parametrize("seed", range(4))
async def test_both_tell_the_same_after_each_call(service, pikku, redis, keys, seed):
    dice = random.Random(seed)
    run_id = await service.create_run("w")
    for number in range(40):
        steps = await service.get_run_steps(run_id)
        is_node = dice.random() < 0.5
        if not steps or (len(steps) < 4 and dice.random() < 0.2):
            insert = pikku.service.insertStepState if is_node else service.insert_step_state
            await insert(run_id, f"s {number}: x", "f", number, {"retries": 9})
            continue
        step = dice.choice(steps)
        await (node_move(pikku, dice, step) if is_node else python_move(service, dice, step))
        theirs, ours = await told_by_both(service, pikku, run_id)
        # An attempt that Node begins as running is pending in Node's own history.
        begun = {one[:2] for one in ours if one[2] == "running"}
        assert [one for one in theirs if one[:2] not in begun] == [
            one for one in ours if one[:2] not in begun
        ]
        assert [one[:2] for one in theirs] == [one[:2] for one in ours]

    for step in await service.get_run_steps(run_id):
        pairs = await redis.zrange(keys.step_history(step.step_id), 0, -1, withscores=True)
        assert [score for _, score in pairs] == list(range(1, step.attempt_count + 1))
        read = await pikku.service.getStepState(run_id, step.step_name)
        assert (read["status"], read["attemptCount"]) == (str(step.status), step.attempt_count)
