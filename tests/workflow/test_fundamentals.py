"""How workflows behave, one concept a test: read it as the tutorial."""

import dataclasses

import msgspec
import pytest
from tests.helpers.state import recorded

from askel import (
    App,
    Run,
    RunExistsError,
    RunFailedError,
    StepContext,
    StepFailedError,
)
from askel.state import idempotency_key

pytestmark = pytest.mark.usefixtures("redis_server")

app = App("tutorial")


class Order(msgspec.Struct):
    id: str
    items: list[str]


class Receipt(msgspec.Struct):
    order: str
    total: float


@dataclasses.dataclass
class Parcel:
    order: str
    weight: float


@app.step
async def charge(order: Order) -> Receipt:
    return Receipt(order.id, 10.0 * len(order.items))


@app.step
def pack(order: Order) -> Parcel:  # a plain function: it runs in a thread
    return Parcel(order.id, 0.5 * len(order.items))


@app.step
async def label(parcel: Parcel, ctx: StepContext) -> str:
    return f"{ctx.step_name} of {ctx.run_id} for {parcel.order}, attempt {ctx.attempt}"


@app.step
async def nothing() -> None: ...


@app.step(retries=0)
async def refuse(why: str) -> None:
    raise ValueError(why)


@app.step(name="shop.keys")
async def keys_of(ctx: StepContext) -> str:
    return ctx.idempotency_key


async def start(service, workflow, data=None, run_id="r"):
    """Run *workflow* here and return its output."""
    await app.start(service, workflow, data, run_id)
    return (await service.get_run(run_id)).output


# A workflow does steps, one after another.


@app.workflow
async def checkout(run: Run, order: Order) -> str:
    receipt = await run.do("charge card", charge, order)
    assert isinstance(receipt, Receipt)
    parcel = await run.do("pack", pack, order)
    assert isinstance(parcel, Parcel)
    return f"{receipt.total} for {parcel.weight} kg"


async def test_workflow_returns_what_its_function_returns(service):
    run_id = await app.start(service, checkout, Order("o1", ["a", "b"]))

    run = await service.get_run(run_id)
    assert (run.status, run.output, run.workflow, run.inline) == (
        "completed",
        "20.0 for 1.0 kg",
        "checkout",
        True,
    )
    assert run.input == {"id": "o1", "items": ["a", "b"]}


async def test_steps_are_recorded_by_name_with_data_and_result(service):
    await start(service, "checkout", Order("o1", ["a"]))

    charged, packed = await service.get_run_history("r")
    assert (charged.step_name, charged.rpc_name, charged.status) == (
        "charge card",
        "charge",
        "succeeded",
    )
    assert charged.data == {"id": "o1", "items": ["a"]}
    assert charged.result == {"order": "o1", "total": 10.0}
    assert (charged.attempt_count, charged.retries, charged.retry_delay) == (1, 5, "exponential")
    assert (packed.step_name, packed.from_step_name) == ("pack", "charge card")


async def test_run_leaves_no_lock_behind(service, redis, keys):
    await start(service, "checkout", Order("o1", []))

    assert await redis.get(keys.lock("r")) is None


async def test_run_id_is_used_once(service):
    await start(service, "checkout", Order("o1", []))

    with pytest.raises(RunExistsError):
        await start(service, "checkout", Order("o1", []))


# Steps are told of their run, if they ask.


@app.workflow
async def labelled(run: Run) -> str:
    return await run.do("print label", label, {"order": "o7", "weight": 1})


async def test_step_may_take_a_context(service):
    assert await start(service, "labelled") == "print label of r for o7, attempt 1"


@app.workflow
async def keyed(run: Run) -> list[str]:
    return [await run.do("first", keys_of), await run.do("second", "shop.keys")]


async def test_every_step_has_an_idempotency_key_of_its_own(service):
    assert await start(service, "keyed") == [
        idempotency_key("r", "first"),
        idempotency_key("r", "second"),
    ]


@app.workflow
async def about_itself(run: Run) -> list[str]:
    return [run.id, run.workflow]


async def test_workflow_knows_its_run(service):
    assert await start(service, "about_itself") == ["r", "about_itself"]


@app.workflow
async def empty(run: Run) -> None:
    return None


async def test_workflow_may_do_nothing(service, redis, keys):
    assert await start(service, "empty") is None
    assert [entry["status"] for entry in await recorded(redis, keys, "r")] == [
        "running",
        "completed",
    ]


@app.workflow
async def quiet(run: Run) -> str:
    return repr(await run.do("nothing", nothing))


async def test_step_may_take_and_return_nothing(service):
    assert await start(service, "quiet") == "None"


# The same name reached again is another step.


@app.workflow
async def thrice(run: Run) -> list[str]:
    return [await run.do("key", keys_of) for _ in range(3)]


async def test_steps_reached_again_are_numbered(service):
    keys = await start(service, "thrice")

    assert [a.step_name for a in await service.get_run_history("r")] == ["key", "key#1", "key#2"]
    assert keys == [idempotency_key("r", name) for name in ("key", "key#1", "key#2")]


# A step that fails for good is an exception in workflow code.


@app.workflow
async def careful(run: Run) -> str:
    try:
        await run.do("try", refuse, "no stock")
    except StepFailedError as error:
        return f"{error.step_name}: {error.error.message} ({error.error.name})"
    return "not reached"


async def test_failed_step_can_be_caught(service):
    assert await start(service, "careful") == "try: no stock (ValueError)"
    assert (await service.get_step_state("r", "try")).status == "failed"


@app.workflow
async def careless(run: Run) -> None:
    await run.do("try", refuse, "no stock")
    await run.do("never", nothing)


async def test_failed_step_that_is_not_caught_fails_the_run(service):
    with pytest.raises(
        RunFailedError, match="run 'r' ended failed: step 'try' failed: no stock"
    ) as caught:
        await start(service, "careless")

    assert caught.value.error.name == "StepFailedError"
    assert [a.step_name for a in await service.get_run_history("r")] == ["try"]


@app.workflow
async def broken(run: Run) -> None:
    raise KeyError("order")


async def test_exception_of_workflow_code_fails_the_run(service):
    with pytest.raises(RunFailedError, match="'order'"):
        await start(service, "broken")
    assert (await service.get_run("r")).error.name == "KeyError"


@app.workflow
async def unfitting(run: Run, order: Order) -> None:
    pytest.fail("the input does not fit")


async def test_input_that_does_not_fit_fails_the_run(service):
    with pytest.raises(RunFailedError, match="missing required field `id`"):
        await start(service, "unfitting", {"no": "order"})


@app.workflow
async def unserialisable(run: Run) -> object:
    return object()


async def test_output_that_json_cannot_carry_fails_the_run(service):
    with pytest.raises(RunFailedError, match="cannot be carried as JSON"):
        await start(service, "unserialisable")


# Sleeping costs nothing but time.


@app.workflow
async def napping(run: Run) -> str:
    await run.sleep("nap", "30ms")
    await run.sleep("nap", 0)
    return "rested"


async def test_sleep_is_a_step_that_lasts(service):
    assert await start(service, "napping") == "rested"

    nap, none = await service.get_run_history("r")
    assert [(a.step_name, a.status, a.rpc_name, a.data) for a in (nap, none)] == [
        ("nap", "succeeded", None, {"duration": 30}), ("nap#1", "succeeded", None, {"duration": 0})
    ]  # fmt: skip
    assert (nap.succeeded_at - nap.scheduled_at).total_seconds() >= 0.03


# Side by side.


@app.workflow
async def both(run: Run) -> list[str]:
    return await run.gather(
        run.do("pack", pack, {"id": "o1", "items": ["x"]}),
        run.do("key", keys_of),
        run.sleep("nap", "1ms"),
    )


async def test_gather_returns_the_results_in_the_order_of_its_parts(service):
    packed, key, slept = await start(service, "both")

    assert (packed, key, slept) == (
        {"order": "o1", "weight": 0.5},
        idempotency_key("r", "key"),
        None,
    )
