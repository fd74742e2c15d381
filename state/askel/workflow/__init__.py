"""The engine: apps, replayed workflow code, attempts, and what drives them."""

from askel.workflow.activation import Activation
from askel.workflow.app import App, StepDefinition, WorkflowDefinition
from askel.workflow.attempts import LocalAttempt, Outcome
from askel.workflow.context import Run, StepContext
from askel.workflow.driver import Ended, Executes, Observer, RunDriver
from askel.workflow.executor import THREAD_NAME, Executor
from askel.workflow.retry import DEFAULT_RETRIES, RetryPolicy

__all__ = [
    "DEFAULT_RETRIES",
    "THREAD_NAME",
    "Activation",
    "App",
    "Ended",
    "Executes",
    "Executor",
    "LocalAttempt",
    "Observer",
    "Outcome",
    "RetryPolicy",
    "Run",
    "RunDriver",
    "StepContext",
    "StepDefinition",
    "WorkflowDefinition",
]
