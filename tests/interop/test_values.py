"""Every value that the codec accepts reaches Node and comes back (contract C.5 e)."""

import dataclasses
import datetime as dt
import decimal
import enum
import uuid

import msgspec
import pytest

from askel import PayloadError

pytestmark = [
    pytest.mark.usefixtures("server"),
    pytest.mark.allow_keys(r".*:step-history:.+"),
]


class Colour(enum.Enum):
    RED = "red"


class Order(msgspec.Struct):
    id: int
    parts: list[str]


@dataclasses.dataclass
class Line:
    text: str


VALUES = [
    None,
    True,
    0,
    -0.0,
    1e300,
    5e-324,
    2**53,
    -(2**53),
    "",
    "ä\u2028\x00\x7f\U0001f600",
    '\\"/</script>',
    [],
    {},
    [[[]]],
    {"": {"__proto__": 1, "constructor": []}},
    {"$encoding": "x"},
    b"\x00\xff",
    dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
    dt.date(2026, 1, 2),
    dt.timedelta(seconds=1.5),
    uuid.UUID(int=7),
    decimal.Decimal("1.10"),
    Colour.RED,
    Order(1, ["a"]),
    Line("x"),
    (1, 2),
    "x" * 100_000,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:30])
async def test_node_reads_what_the_codec_accepts(service, pikku, value):
    run_id = await service.create_run("shop", value, wire={"type": "unknown"})
    step = await service.insert_step_state(run_id, "a", "f", value)
    await service.set_step_running(step.step_id)
    await service.set_step_result(step.step_id, value)
    await service.update_run_state(run_id, "v", value)
    await service.update_run_status(run_id, "completed", value)

    ours = await service.get_run(run_id)
    (listed,) = await pikku.runs.listRuns()
    assert listed["input"] == ours.input
    assert listed.get("output") == ours.output
    assert (await pikku.service.getRunState(run_id)) == {"v": ours.input}
    (attempt,) = await pikku.service.getRunHistory(run_id)
    assert attempt.get("result") == ours.input
    (step,) = await pikku.runs.getRunSteps(run_id)
    assert step.get("data") == step.get("result") == ours.input


@pytest.mark.parametrize(
    "value", [2**53 + 1, [-(2**53) - 1], {"a": 2**64}, float("nan"), float("inf")], ids=repr
)
async def test_what_node_would_change_is_refused_before_anything_is_written(
    service, redis, keys, value
):
    with pytest.raises(PayloadError):
        await service.create_run("shop", value)
    assert not await redis.keys(f"{keys.prefix}:run:*")
    run_id = await service.create_run("shop")
    step = await service.insert_step_state(run_id, "a", "f")
    for call in (
        service.insert_step_state(run_id, "b", "f", value),
        service.set_step_result(step.step_id, value),
        service.update_run_state(run_id, "v", value),
        service.update_run_status(run_id, "completed", value),
    ):
        with pytest.raises(PayloadError):
            await call
    assert (await service.get_step_state(run_id, "a")).status == "pending"
