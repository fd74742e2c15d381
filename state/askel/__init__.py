"""askel: durable workflows on the Redis you already have."""

from askel import errors
from askel.errors import *  # noqa: F403 - every exception is public
from askel.state import (
    UNSET,
    RedisWorkflowService,
    RunLock,
    RunPage,
    RunStatus,
    SerializedError,
    StepAttempt,
    StepOptions,
    StepState,
    StepStatus,
    WorkflowRun,
)
from askel.wire import Client, RunHandle, StreamQueue
from askel.workflow import App, Run, StepContext

__all__ = [
    "UNSET",
    "App",
    "Client",
    "RedisWorkflowService",
    "Run",
    "RunHandle",
    "RunLock",
    "RunPage",
    "RunStatus",
    "SerializedError",
    "StepAttempt",
    "StepContext",
    "StepOptions",
    "StepState",
    "StepStatus",
    "StreamQueue",
    "WorkflowRun",
]
__all__ += errors.__all__
