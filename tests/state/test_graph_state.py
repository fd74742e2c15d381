"""What the runner of a graph reads: nodes done, nodes failed for good, branches, results."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askel import GraphState, InvalidNameError, StepInstance, StepStatus
from askel.state.reads.graph_state import graph_state

pytestmark = pytest.mark.usefixtures("redis_server")

NAMES = (
    *("step", "a:step:b", ":", "a:", "#", "n#1", "n[0]", "{x}", "*", "a*?[z]\\", "two words"),
    *("ünï", "😀", "__x", "pay:onError", "x" * 512),
)


async def step(service, name, outcome=None, retries=None, **given):
    """Insert a step and end it: with a result, or an error."""
    options = None if retries is None else {"retries": retries}
    state = await service.insert_step_state("r", name, "f", None, options, **given)
    if isinstance(outcome, Exception):
        await service.set_step_error(state.step_id, outcome)
    elif outcome is not None:
        await service.set_step_result(state.step_id, outcome)
    return state.step_id


@pytest.fixture
async def run(service):
    return await service.create_run("w", run_id="r")


async def test_steps_of_every_name_count_once(service, run):
    for name in NAMES:
        await step(service, name, [name])

    state = await service.get_completed_graph_state("r")

    assert state == GraphState(list(NAMES), [], {})
    assert [one.step_name for one in await service.get_step_instances("r")] == list(NAMES)
    assert await service.get_node_results("r", NAMES) == {name: [name] for name in NAMES}


async def test_nodes_that_are_under_way_are_in_no_list(service, run):
    await step(service, "pending")
    await service.set_step_scheduled(await step(service, "scheduled"))
    await service.set_step_running(await step(service, "running"))

    assert await service.get_completed_graph_state("r") == GraphState([], [], {})


@pytest.mark.parametrize(
    ("retries", "attempts", "failed"),
    [(None, 1, True), (0, 1, True), (1, 1, False), (1, 2, True), (2, 2, False), (2, 3, True)],
)
async def test_node_has_failed_when_its_attempts_are_spent(service, run, retries, attempts, failed):
    step_id = await step(service, "n", ValueError("no"), retries)
    for _ in range(attempts - 1):
        await service.create_retry_attempt(step_id)
        await service.set_step_error(step_id, ValueError("no"))

    state = await service.get_completed_graph_state("r")

    assert state.failed_node_ids == (["n"] if failed else [])


async def test_branches_of_completed_nodes_are_told(service, run, redis, keys):
    for name, outcome in (("done", 1), ("undone", None), ("failed", ValueError("no"))):
        await step(service, name, outcome)
        await redis.hset(keys.step("r", name), "branchTaken", f"{name}: left")

    state = await service.get_completed_graph_state("r")

    assert state == GraphState(["done"], ["failed"], {"done": "done: left"})


async def test_instances_tell_status_and_provenance(service, run):
    await step(service, "a", 1)
    await step(service, "b", ValueError("no"), from_step_name="a")
    await step(service, "b#1", from_step_name="b")

    assert await service.get_step_instances("r") == [
        StepInstance("a", StepStatus.SUCCEEDED),
        StepInstance("b", StepStatus.FAILED, "a"),
        StepInstance("b#1", StepStatus.PENDING, "b"),
    ]


@pytest.mark.parametrize("value", [None, 0, False, "", [], {}, 0.0])
async def test_every_result_comes_back(service, run, value):
    state = await service.insert_step_state("r", "n", "f")
    await service.set_step_result(state.step_id, value)

    found = await service.get_node_results("r", ["n", "n", "missing"])

    assert found == {"n": value}
    assert type(found["n"]) is type(value)


async def test_results_are_those_of_succeeded_nodes(service, run, redis, keys):
    await step(service, "failed", ValueError("no"))
    await step(service, "running")
    await redis.hset(keys.step("r", "running"), "result", "1")

    assert await service.get_node_results("r", ["failed", "running"]) == {}


async def test_no_nodes_are_not_read(distant, proxy):
    proxy.refuse_connections()

    assert await distant.get_node_results("r", []) == {}


@pytest.mark.parametrize("run_id", ["*", "r*", "[r]", "r?", "r:n", "", "\\r"])
async def test_run_ids_are_no_patterns(service, run, run_id):
    await step(service, "n", 1)

    for call in (
        service.get_completed_graph_state(run_id),
        service.get_step_instances(run_id),
        service.get_node_results(run_id, ["n"]),
        service.get_run_status(run_id),
        service.get_run_timeline(run_id),
    ):
        with pytest.raises(InvalidNameError):
            await call


async def test_impossible_node_is_refused(service, run):
    with pytest.raises(InvalidNameError, match="node id"):
        await service.get_node_results("r", ["a", ""])


STEPS = st.dictionaries(
    st.text(min_size=1),
    st.fixed_dictionaries(
        {"status": st.sampled_from([b"pending", b"running", b"succeeded", b"failed"])},
        optional={
            "attemptCount": st.integers(1, 4).map(lambda number: b"%d" % number),
            "retries": st.integers(0, 3).map(lambda number: b"%d" % number),
            "branchTaken": st.sampled_from([b"", b"left"]),
        },
    ),
)


@given(STEPS)
def test_each_step_is_in_at_most_one_list(steps):
    state = graph_state(steps)

    listed = [*state.completed_node_ids, *state.failed_node_ids]
    assert len(listed) == len(set(listed))
    assert set(state.branch_keys) <= set(state.completed_node_ids)
    for name, fields in steps.items():
        spent = int(fields.get("attemptCount", 1)) >= int(fields.get("retries", 0)) + 1
        assert (name in state.completed_node_ids) == (fields["status"] == b"succeeded")
        assert (name in state.failed_node_ids) == (fields["status"] == b"failed" and spent)
