"""What user code sees: ``Run`` in workflows, ``StepContext`` in steps."""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from askel.durations import Duration, duration_ms
from askel.errors import InvalidOptionError, WorkflowCodeError
from askel.names import check_own_step_name, check_queue
from askel.state import from_ms, idempotency_key
from askel.state.codec import Codec
from askel.workflow.sources import Sources

if TYPE_CHECKING:
    from askel.workflow.app import App, StepDefinition
    from askel.workflow.retry import RetryPolicy


class StepContext:
    """What a step may ask about the attempt it is executed for."""

    __slots__ = ("attempt", "run_id", "step_name")

    def __init__(self, run_id: str, step_name: str, attempt: int) -> None:
        """Describe the attempt."""
        self.run_id = run_id
        self.step_name = step_name
        self.attempt = attempt

    @property
    def idempotency_key(self) -> str:
        """The same text for every attempt of this step, on whatever machine; pass it on.

        Steps are executed at least once. A system that takes an idempotency key turns that into
        exactly once. It is made of run id and step name: a run that takes the id of one that has
        ended has its keys, too, so that what was paid is not paid again.
        """
        return idempotency_key(self.run_id, self.step_name)


class Operation:
    """Something a workflow awaits. Awaiting hands it to whoever drives the workflow."""

    __slots__ = ()

    def __await__(self) -> Generator[Operation, Any, Any]:
        """Hand this operation to the driver and return what it answers."""
        return (yield self)


class StepCall(Operation):
    """A step that workflow code reaches with ``run.do``."""

    __slots__ = ("codec", "data", "definition", "name", "policy", "queue", "rpc_name", "timeout_ms")

    def __init__(
        self,
        name: str,
        rpc_name: str,
        *,
        definition: StepDefinition | None,
        data: bytes,
        policy: RetryPolicy,
        timeout_ms: int | None,
        queue: str | None,
        codec: Codec,
    ) -> None:
        """Keep what was asked for; nothing happens before it is awaited."""
        self.name = name
        self.rpc_name = rpc_name
        self.definition = definition
        self.data = data
        self.policy = policy
        self.timeout_ms = timeout_ms
        self.queue = queue
        self.codec = codec

    @property
    def is_local(self) -> bool:
        """Whether the process that drives the run executes it, too."""
        return self.queue is None and self.definition is not None

    def value(self, result: bytes) -> Any:
        """Return the recorded *result* as the type that the step is annotated to return."""
        wanted = self.definition.result_type if self.definition else Any
        return self.codec.convert(result, Any if wanted in (None, type(None)) else wanted)


class SleepCall(Operation):
    """A pause that workflow code reaches with ``run.sleep``."""

    __slots__ = ("delay_ms", "name")

    def __init__(self, name: str, delay_ms: int) -> None:
        """Keep what was asked for; nothing happens before it is awaited."""
        self.name = name
        self.delay_ms = delay_ms


class SignalWait(Operation):
    """A wait for a signal that workflow code reaches with ``run.wait_signal``."""

    __slots__ = ("codec", "name", "timeout_ms", "wanted")

    def __init__(self, name: str, wanted: Any, timeout_ms: int | None, codec: Codec) -> None:
        """Keep what was asked for; nothing happens before it is awaited."""
        self.name = name
        self.wanted = wanted
        self.timeout_ms = timeout_ms
        self.codec = codec

    def value(self, data: bytes) -> Any:
        """Return what the signal carries, as the type that was asked for."""
        return self.codec.convert(data, self.wanted)


class Gather(Operation):
    """Several operations or coroutines that run side by side."""

    __slots__ = ("limit", "parts")

    def __init__(
        self, parts: tuple[Operation | Coroutine[Any, Any, Any], ...], limit: int | None = None
    ) -> None:
        """Keep the parts, of which *limit* may be under way; nothing happens before the await."""
        if limit is not None and limit < 1:
            raise InvalidOptionError(f"limit={limit}: at least one part must be able to go on")
        for part in parts:
            if not isinstance(part, Operation | Coroutine):
                msg = (
                    f"run.gather takes what run offers, and coroutines made of it, not {part!r:.80}"
                )
                raise WorkflowCodeError(msg)
        self.parts = parts
        self.limit = limit


Awaited: TypeAlias = "Operation | Coroutine[Any, Any, Any]"


class Run:
    """The run that a workflow function is executed for.

    Workflow code is replayed after a crash or a long wait: it awaits only what this object offers,
    takes time and chance from it, and the outside world through steps.
    """

    __slots__ = ("_app", "_sources", "id", "workflow")

    def __init__(self, app: App, run_id: str, workflow: str, sources: Sources) -> None:
        """Describe the run."""
        self._app = app
        self._sources = sources
        self.id = run_id
        self.workflow = workflow

    def do(
        self,
        name: str,
        step: Any,
        data: Any = None,
        *,
        retries: int | None = None,
        retry_delay: Duration | None = None,
        timeout: Duration | None = None,
        queue: str | None = None,
    ) -> StepCall:
        """Execute a step, once: await it for its result, recorded under *name*.

        Reached again under the same name it is another step (``name#1``, ``name#2``).

        Args:
            name: What people call this step of the run.
            step: A function decorated with ``@app.step``, or an rpc name. A name that this app has
                no step for is executed by whoever has, through the stream.
            data: The step's argument.
            retries: In place of the step's own.
            retry_delay: In place of the step's own.
            timeout: In place of the step's own.
            queue: Send it to this queue, even if this process could execute it.

        Raises:
            StepFailedError: When awaited: its last attempt failed.
            PayloadError, InvalidNameError, RegistrationError: At once, before anything is written.
        """
        from askel.workflow.retry import RetryPolicy  # noqa: PLC0415 - context is imported by app

        definition = self._app.step_of(step)
        timeout_ms = definition.timeout_ms if definition else None
        return StepCall(
            check_own_step_name(name),
            definition.name if definition else step,
            definition=definition,
            data=self._app.codec.encode(data),
            policy=(definition.policy if definition else RetryPolicy()).changed(
                retries, retry_delay
            ),
            timeout_ms=timeout_ms if timeout is None else duration_ms(timeout),
            queue=None if queue is None else check_queue(queue),
            codec=self._app.codec,
        )

    def now(self) -> datetime:
        """Return the time, UTC: the same again whenever the run is replayed, and never earlier.

        It is the time of the last thing that the code was told: a step that ended, a timer that
        fired, a signal. Between two awaits it stands still. It is the clock of Redis.
        """
        return from_ms(self._sources.now_ms())

    def random(self) -> float:
        """Return a random number from 0 to 1, 1 excluded: the same one in every replay.

        It is not secret: who knows the run's id and time of creation can compute it.
        """
        return self._sources.number()

    def uuid(self) -> UUID:
        """Return a random UUID: the same one in every replay. It is no secret, see `random`."""
        return self._sources.uuid()

    def sleep(self, name: str, duration: Duration) -> SleepCall:
        """Pause for *duration*, from milliseconds to years; no process waits meanwhile."""
        return SleepCall(check_own_step_name(name), duration_ms(duration))

    def wait_signal(
        self, name: str, type: Any = Any, *, timeout: Duration | None = None
    ) -> SignalWait:
        """Wait for the next signal called *name*; await this for what it carries.

        Signals of a name are taken in the order in which they were recorded, each once. One that
        came before it is waited for is kept. No process waits meanwhile.

        Args:
            name: The signal's; in listings the wait stands under it as a step.
            type: What its data is converted to.
            timeout: How long to wait at most, from milliseconds to years; by default for ever.

        Raises:
            TimeoutError: When awaited: no signal came in time. One that comes later is kept for
                the next wait.
            PayloadError: When awaited: the data does not fit *type*.
            InvalidNameError, InvalidOptionError: At once.
        """
        timeout_ms = None if timeout is None else duration_ms(timeout)
        return SignalWait(check_own_step_name(name), type, timeout_ms, self._app.codec)

    def gather(self, *parts: Awaited, limit: int | None = None) -> Gather:
        """Run several operations, or coroutines made of them, side by side; await their results.

        The results come in the order of the arguments. When parts fail, the others still end, and
        the failure of the first of them in that order is raised.

        Args:
            parts: What to run.
            limit: How many may be under way at the same time; by default all.

        Raises:
            InvalidOptionError: At once: there is no part, or the limit is less than 1.
        """
        if not parts:
            raise InvalidOptionError("run.gather needs at least one part")
        return Gather(parts, limit)

    def map(
        self,
        name: str,
        step: Any,
        items: Iterable[Any],
        *,
        limit: int | None = None,
        **options: Any,
    ) -> Gather:
        """Execute *step* for each of *items*; await this for the results, in their order.

        Each item has a step of its own: ``name``, ``name#1``, ``name#2``… Failures are as in
        `gather`.

        Args:
            name: What people call these steps.
            step: As in `do`.
            items: The step's arguments; they are all taken at once. Of none come no results.
            limit: How many may be under way at the same time; by default all.
            options: Those of `do`: retries, retry_delay, timeout, queue.

        Raises:
            InvalidOptionError, InvalidNameError, PayloadError, RegistrationError: At once.
        """
        return Gather(tuple(self.do(name, step, item, **options) for item in items), limit)
