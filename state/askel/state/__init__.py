"""The state of runs in Redis: keys, records, scripts, the service, the run protocol.

What is exported here is what daemons and engines build on; applications import from ``askel``.
"""

from askel.state import codec
from askel.state.activations import Activations
from askel.state.attempts import Attempts, Timers, renew_call, renewed
from askel.state.caller import GROUP
from askel.state.connection import Connection, MultiplexedConnection, connect
from askel.state.history import (
    HistoryEntry,
    decode_entries,
    fold_attempts,
    quoted,
    started_body,
    status_body,
    step_body,
)
from askel.state.ids import IdSource, SystemIds, idempotency_key, run_id_of_command, run_id_of_entry
from askel.state.keys import Keys
from askel.state.models import (
    UNSET,
    RunStatus,
    SerializedError,
    StepAttempt,
    StepOptions,
    StepState,
    StepStatus,
    WorkflowRun,
)
from askel.state.moves import TERMINAL
from askel.state.nudging import owner_process, send_nudge
from askel.state.queries import RunPage
from askel.state.recording import Recording, create_call
from askel.state.records import fields_of, read_run, read_step
from askel.state.runlock import RunLock
from askel.state.scripts import Script, Scripts, is_passing, load_scripts
from askel.state.server import ServerFacts
from askel.state.service import RedisWorkflowService
from askel.state.settings import ConnectionSettings, client_of
from askel.state.turns import (
    Activated,
    Begun,
    Entry,
    Refusal,
    Renewed,
    StepDecision,
    StepResult,
    Turn,
    Turned,
)

__all__ = [
    "GROUP",
    "TERMINAL",
    "UNSET",
    "Activated",
    "Activations",
    "Attempts",
    "Begun",
    "Connection",
    "ConnectionSettings",
    "Entry",
    "HistoryEntry",
    "IdSource",
    "Keys",
    "MultiplexedConnection",
    "Recording",
    "RedisWorkflowService",
    "Refusal",
    "Renewed",
    "RunLock",
    "RunPage",
    "RunStatus",
    "Script",
    "Scripts",
    "SerializedError",
    "ServerFacts",
    "StepAttempt",
    "StepDecision",
    "StepOptions",
    "StepResult",
    "StepState",
    "StepStatus",
    "SystemIds",
    "Timers",
    "Turn",
    "Turned",
    "WorkflowRun",
    "client_of",
    "codec",
    "connect",
    "create_call",
    "decode_entries",
    "fields_of",
    "fold_attempts",
    "idempotency_key",
    "is_passing",
    "load_scripts",
    "owner_process",
    "quoted",
    "read_run",
    "read_step",
    "renew_call",
    "renewed",
    "run_id_of_command",
    "run_id_of_entry",
    "send_nudge",
    "started_body",
    "status_body",
    "step_body",
]
