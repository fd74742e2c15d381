"""App: the registry of workflows and steps, and the decorators that fill it."""

from __future__ import annotations

import copy
import inspect
import typing
from collections.abc import Callable
from typing import Any, Self, TypeVar, overload

import msgspec

from askel.durations import Duration, duration_ms
from askel.errors import RegistrationError
from askel.names import check_name
from askel.state import Durability, RedisWorkflowService, as_durability
from askel.state.codec import PLAIN, Codec
from askel.wire import RunStart
from askel.workflow.context import StepContext
from askel.workflow.retry import RetryPolicy

F = TypeVar("F", bound=Callable[..., Any])
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class StepDefinition(msgspec.Struct, frozen=True):
    """A registered handler: the function and how it is called and tried."""

    name: str
    fn: Callable[..., Any]
    policy: RetryPolicy
    timeout_ms: int | None
    takes_data: bool
    context_name: str | None
    data_type: Any
    result_type: Any
    is_async: bool


class WorkflowDefinition(msgspec.Struct, frozen=True):
    """A registered workflow: a coroutine function of ``(run, input)``."""

    name: str
    fn: Callable[..., Any]
    takes_input: bool
    input_type: Any
    durability: Durability = Durability()


class App:
    """What one application offers: its workflows and its steps, by name.

    Importing an app opens nothing: a worker or ``App.start`` brings it to life.
    """

    def __init__(self, name: str, *, codec: Codec = PLAIN) -> None:
        """Name the app; the name appears in logs.

        *codec* writes and reads the payloads of its runs. Give the same one to the clients that
        start them and to the services that read them.
        """
        self.codec = codec
        self.name = check_name(name, "app name")
        self.steps: dict[str, StepDefinition] = {}
        self.workflows: dict[str, WorkflowDefinition] = {}
        self._by_function: dict[Any, StepDefinition] = {}

    @overload
    def step(self, fn: F) -> F: ...
    @overload
    def step(
        self,
        fn: None = None,
        *,
        name: str | None = None,
        retries: int | None = None,
        retry_delay: Duration | None = None,
        timeout: Duration | None = None,
    ) -> Callable[[F], F]: ...
    def step(
        self,
        fn: Any = None,
        *,
        name: str | None = None,
        retries: int | None = None,
        retry_delay: Duration | None = None,
        timeout: Duration | None = None,
    ) -> Any:
        """Register a function, async or not, as a step; it stays an ordinary function.

        It takes the step's data (or nothing), and a ``StepContext`` if a parameter is annotated
        with it or called ``ctx``. Data arrives as the type it is annotated with.

        Args:
            fn: The function, when used without parentheses.
            name: The rpc name on the wire; the function's name by default.
            retries: Attempts beyond the first; 5 by default, 0 means exactly one attempt.
            retry_delay: The pause before each retry, or ``"exponential"`` (the default).
            timeout: How long one attempt may take.

        Raises:
            RegistrationError: The name is taken, or the function takes more than its data.
        """

        def register(function: F) -> F:
            definition = _step(
                function,
                name or _name_of(function),
                RetryPolicy().changed(retries, retry_delay),
                None if timeout is None else duration_ms(timeout),
            )
            self._claim(definition.name)
            self.steps[definition.name] = definition
            self._by_function[function] = definition
            return function

        return register if fn is None else register(fn)

    @overload
    def workflow(self, fn: F) -> F: ...
    @overload
    def workflow(
        self,
        fn: None = None,
        *,
        name: str | None = None,
        durability: Durability | str | None = None,
    ) -> Callable[[F], F]: ...
    def workflow(
        self,
        fn: Any = None,
        *,
        name: str | None = None,
        durability: Durability | str | None = None,
    ) -> Any:
        """Register a coroutine function of ``(run)`` or ``(run, input)`` as a workflow.

        Args:
            fn: The function, when used without parentheses.
            name: The workflow's name; the function's name by default.
            durability: Of its runs that are started without one: ``memory`` (the default),
                ``fsync`` or ``replicated(n)``. Whoever awaits the end of a run, and ``start`` of
                this app, is answered when Redis has confirmed that.

        Raises:
            RegistrationError: The name is taken, or it is no coroutine function.
            InvalidOptionError: The durability is not known.
        """
        level = as_durability(durability)

        def register(function: F) -> F:
            definition = _workflow(function, name or _name_of(function), level)
            self._claim(definition.name)
            self.workflows[definition.name] = definition
            return function

        return register if fn is None else register(fn)

    def step_of(self, target: Any) -> StepDefinition | None:
        """Return the step registered for a function or a name; None for a name unknown here.

        Raises:
            RegistrationError: *target* is a function that is not registered, or neither.
        """
        if isinstance(target, str):
            return self.steps.get(check_name(target, "rpc name"))
        definition = self._by_function.get(target) if callable(target) else None
        if definition is None:
            shown = getattr(target, "__name__", type(target).__name__)
            msg = f"{shown!r} is not a step of app {self.name!r}: decorate it with @app.step"
            raise RegistrationError(msg)
        return definition

    async def start(
        self,
        service: RedisWorkflowService,
        name: str | Callable[..., Any],
        input: Any = None,
        run_id: str | None = None,
        *,
        durability: Durability | str | None = None,
    ) -> str:
        """Start a run and return its id.

        With a queue the service is remote: a ``run.start`` goes to the daemons and this returns
        at once. Without one the workflow runs here, inline, and this returns when it has ended.

        Args:
            service: Where the run is kept.
            name: The workflow's name, or its function.
            input: Its input.
            run_id: The id to give the run; a new one by default.
            durability: ``fsync`` or ``replicated(n)`` confirms the start, or inline the end, before
                this returns; by default what the workflow was registered with here.

        Raises:
            NotConfirmedError: It was started, or inline it has ended, and that may yet be lost.
            StoreUnsafeError: This server can never confirm that; nothing was sent.
            RegistrationError: Inline, and the workflow is not registered here.
            RunFailedError: Inline, and the run failed or was cancelled.
            RunExistsError: Inline, and *run_id* exists.
        """
        workflow = name if isinstance(name, str) else _name_of(name)
        app = self.for_compat() if service.compat else self
        known = self.workflows.get(workflow)
        level = as_durability(durability or (known.durability if known else None))
        if service.queue is None:
            from askel.workflow.inline import start_inline  # noqa: PLC0415 - it imports the app

            return await start_inline(app, service, workflow, input, run_id, level)
        run_id = run_id or service.ids.run_id()
        command = RunStart(
            workflow=check_name(workflow, "workflow name"),
            input=app.codec.encode(input).decode(),
            run_id=run_id,
            durability=str(level) if level else "",
        )
        await service.queue.send(command, codec=app.codec, durability=level)
        return run_id

    async def resume(self, service: RedisWorkflowService, run_id: str) -> str:
        """Drive an inline run on whose process died, to its end; return its id.

        Completed steps are not executed again. A run that has ended is left as it is.

        Raises:
            RunNotFoundError: There is no such run.
            LockNotAcquiredError: Somebody drives it, or its dead driver's lease has not run out.
            RegistrationError: Daemons drive it, or its workflow is not registered here.
            RunFailedError: It ended otherwise than completed.
        """
        from askel.workflow.inline import resume_inline  # noqa: PLC0415 - it imports the app

        app = self.for_compat() if service.compat else self
        return await resume_inline(app, service, run_id)

    def for_compat(self) -> Self:
        """Return this app with a codec that refuses what a Node service would change."""
        app = copy.copy(self)
        app.codec = self.codec.for_compat()
        return app

    def _claim(self, name: str) -> None:
        if name in self.steps or name in self.workflows:
            msg = f"app {self.name!r} has a workflow or step named {name!r} already"
            raise RegistrationError(msg)


def _name_of(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _step(
    function: Callable[..., Any], name: str, policy: RetryPolicy, timeout_ms: int | None
) -> StepDefinition:
    check_name(name, "rpc name")
    hints = _hints(function)
    data: list[inspect.Parameter] = []
    context_name = None
    for parameter in inspect.signature(function).parameters.values():
        if hints.get(parameter.name) is StepContext or parameter.name == "ctx":
            context_name = parameter.name
        elif parameter.kind in _POSITIONAL and (
            not data or parameter.default is inspect.Parameter.empty
        ):
            data.append(parameter)
    if len(data) > 1:
        msg = f"step {name!r} takes {len(data)} arguments; a step takes its data as one"
        raise RegistrationError(msg)
    return StepDefinition(
        name=name,
        fn=function,
        policy=policy,
        timeout_ms=timeout_ms,
        takes_data=bool(data),
        context_name=context_name,
        data_type=hints.get(data[0].name, Any) if data else Any,
        result_type=hints.get("return", Any),
        is_async=inspect.iscoroutinefunction(function),
    )


def _workflow(
    function: Callable[..., Any], name: str, durability: Durability
) -> WorkflowDefinition:
    check_name(name, "workflow name")
    if not inspect.iscoroutinefunction(function):
        msg = f"workflow {name!r} must be an 'async def' function"
        raise RegistrationError(msg)
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) not in {1, 2}:
        msg = f"workflow {name!r} must take (run) or (run, input)"
        raise RegistrationError(msg)
    hints = _hints(function)
    takes_input = len(parameters) > 1
    return WorkflowDefinition(
        name=name,
        fn=function,
        takes_input=takes_input,
        input_type=hints.get(parameters[1].name, Any) if takes_input else Any,
        durability=durability,
    )


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the resolved annotations; those that cannot be resolved yet count as absent."""
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):
        return {}
