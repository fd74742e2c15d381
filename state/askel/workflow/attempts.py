"""An attempt that the deciding process executes itself, and how it ended."""

from __future__ import annotations

import msgspec

from askel.state import SerializedError
from askel.workflow.app import StepDefinition


class LocalAttempt(msgspec.Struct):
    """An attempt that this process executes: begun by a turn, ended by the next."""

    key: str
    attempt: int
    nonce: str
    definition: StepDefinition
    data: bytes
    timeout_ms: int | None
    run_id: str


class Outcome(msgspec.Struct, frozen=True):
    """How an attempt ended. ``permanent`` failures are not tried again."""

    json: bytes
    error: SerializedError | None = None
    permanent: bool = False
