"""Workflows and steps are registered by name, once, and say what they take."""

import dataclasses

import msgspec
import pytest

from askel import App, InvalidNameError, InvalidOptionError, RegistrationError, Run, StepContext
from askel.workflow import RetryPolicy


class Order(msgspec.Struct):
    id: str


@dataclasses.dataclass
class Parcel:
    id: str


@pytest.fixture
def app():
    return App("shop")


def test_step_stays_an_ordinary_function(app):
    @app.step
    def double(number: int) -> int:
        return 2 * number

    @app.step(retries=2)
    async def triple(number: int) -> int:
        return 3 * number

    assert double(4) == 8
    assert set(app.steps) == {"double", "triple"}
    assert (app.steps["double"].is_async, app.steps["triple"].is_async) == (False, True)


def test_step_is_found_by_function_and_by_name(app):
    @app.step(name="shop.double")
    def double(number: int) -> int:
        return 2 * number

    assert app.step_of(double) is app.step_of("shop.double") is app.steps["shop.double"]
    assert app.step_of("double") is None


async def takes_nothing() -> None: ...
async def takes_data(order: Order) -> Parcel: ...
async def takes_context(ctx: StepContext) -> None: ...
async def takes_both(order: Order, context: StepContext) -> None: ...
async def takes_context_first(ctx, order: Order): ...
async def takes_default(order: Order, size: int = 1) -> None: ...
async def takes_keyword(order: Order, *, ctx: StepContext) -> None: ...


@pytest.mark.parametrize(
    ("function", "takes_data_", "context", "data_type"),
    [
        (takes_nothing, False, None, None),
        (takes_data, True, None, Order),
        (takes_context, False, "ctx", None),
        (takes_both, True, "context", Order),
        (takes_context_first, True, "ctx", Order),
        (takes_default, True, None, Order),
        (takes_keyword, True, "ctx", Order),
    ],
)
def test_step_takes_its_data_and_a_context(app, function, takes_data_, context, data_type):
    app.step(function)

    definition = app.steps[function.__name__]
    assert (definition.takes_data, definition.context_name) == (takes_data_, context)
    if data_type is not None:
        assert definition.data_type is data_type


def test_types_come_from_the_annotations(app):
    app.step(takes_data)

    assert app.steps["takes_data"].result_type is Parcel


async def takes_two(one: int, two: int) -> None: ...


def test_step_that_takes_more_than_its_data_is_refused(app):
    with pytest.raises(
        RegistrationError, match="step 'takes_two' takes 2 arguments; a step takes its data as one"
    ):
        app.step(takes_two)
    assert app.steps == {}


def test_options_are_the_steps_policy(app):
    app.step(retries=0, retry_delay="5s", timeout="2min")(takes_nothing)
    app.step(takes_data)

    assert app.steps["takes_nothing"].policy == RetryPolicy(0, "5s")
    assert app.steps["takes_nothing"].timeout_ms == 120_000
    assert (app.steps["takes_data"].policy, app.steps["takes_data"].timeout_ms) == (
        RetryPolicy(),
        None,
    )


@pytest.mark.parametrize(
    "options", [{"retries": -1}, {"retry_delay": "soon"}, {"timeout": "x"}, {"retries": 1.5}]
)
def test_options_that_make_no_sense_are_refused(app, options):
    with pytest.raises(InvalidOptionError):
        app.step(**options)(takes_nothing)


async def one(run: Run) -> None: ...
async def two(run: Run, order: Order) -> None: ...
async def three(run: Run, order: Order, more: int) -> None: ...
async def zero() -> None: ...
def plain(run: Run) -> None: ...
async def generator(run: Run):
    yield 1


def test_workflow_takes_the_run_and_perhaps_an_input(app):
    app.workflow(one)
    app.workflow(name="second")(two)

    assert (app.workflows["one"].takes_input, app.workflows["second"].takes_input) == (False, True)
    assert app.workflows["second"].input_type is Order


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (three, r"must take \(run\) or \(run, input\)"),
        (zero, r"must take \(run\)"),
        (plain, "must be an 'async def' function"),
        (generator, "must be an 'async def' function"),
    ],
)
def test_what_is_no_workflow_is_refused(app, function, why):
    with pytest.raises(RegistrationError, match=why):
        app.workflow(function)


@pytest.mark.parametrize("first", ["step", "workflow"])
@pytest.mark.parametrize("second", ["step", "workflow"])
def test_name_is_used_once(app, first, second):
    register = {
        "step": lambda: app.step(name="same")(takes_nothing),
        "workflow": lambda: app.workflow(name="same")(one),
    }
    register[first]()

    with pytest.raises(
        RegistrationError, match="app 'shop' has a workflow or step named 'same' already"
    ):
        register[second]()


@pytest.mark.parametrize("name", ["a\n", "\ud800", "x" * 513])
def test_names_are_checked(app, name):
    for register in (
        lambda: app.step(name=name)(takes_nothing),
        lambda: app.workflow(name=name)(one),
    ):
        with pytest.raises(InvalidNameError):
            register()
    with pytest.raises(InvalidNameError):
        App(name)


@pytest.mark.parametrize("target", [takes_two, 7, None, object()])
def test_what_is_no_step_is_not_found(app, target):
    with pytest.raises(
        RegistrationError, match="is not a step of app 'shop': decorate it with @app"
    ):
        app.step_of(target)


def test_apps_do_not_share_their_registry(app):
    other = App("other")
    app.step(takes_nothing)
    other.step(takes_nothing)

    assert app.steps["takes_nothing"] is not other.steps["takes_nothing"]
