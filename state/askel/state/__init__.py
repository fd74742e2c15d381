"""The state of runs in Redis: keys, records, scripts, the service, the run protocol.

What is exported here is what daemons and engines build on; applications import from ``askel``.
"""

from askel.state import codec
from askel.state.arguments import as_policy
from askel.state.codec import AesGcm, Codec, PayloadTransform, Sealed, Zstd
from askel.state.durability import CONFIRM_S, Confirmer, Durability, as_durability
from askel.state.ids import IdSource, SystemIds, idempotency_key, run_id_of_command, run_id_of_entry
from askel.state.keys import Keys
from askel.state.locks.run_lock import RunLock
from askel.state.models import (
    UNSET,
    IfExists,
    RunStatus,
    SerializedError,
    StepAttempt,
    StepOptions,
    StepState,
    StepStatus,
    WorkflowRun,
    from_ms,
)
from askel.state.moves import TERMINAL
from askel.state.pikku.reading import check_compat
from askel.state.protocol.activations import Activations
from askel.state.protocol.attempts import Attempts, Timers, renew_call, renewed
from askel.state.protocol.caller import GROUP
from askel.state.protocol.nudging import owner_process, send_nudge
from askel.state.protocol.recording import Recording, create_call
from askel.state.protocol.sweeping import Sweeping, Swept
from askel.state.protocol.tokens import TokenSweep
from askel.state.protocol.turns import (
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
from askel.state.protocol.watching import Watching
from askel.state.reads.graph_state import GraphState, StepInstance
from askel.state.reads.history import (
    HistoryEntry,
    decode_entries,
    fold_attempts,
    quoted,
    started_body,
    status_body,
    step_body,
)
from askel.state.reads.queries import RunPage
from askel.state.reads.records import fields_of, read_run, read_step
from askel.state.reads.reports import RunStatusReport, StepReport, build_report
from askel.state.reads.run_facts import (
    OpenStep,
    Place,
    RunFacts,
    StreamFacts,
    read_facts,
    rearm_call,
)
from askel.state.reads.timeline import (
    ApprovalAt,
    RunStateAt,
    RunTimeline,
    SignalAt,
    StepAt,
    TimelineEvent,
    build_timeline,
    reconstruct_state_at,
)
from askel.state.reindex import ReindexReport
from askel.state.retention import Retention, RetentionPolicy
from askel.state.service import RedisWorkflowService
from askel.state.store.addresses import read_secret
from askel.state.store.connecting import connect
from askel.state.store.connection import Connection, MultiplexedConnection
from askel.state.store.permissions import denied_commands
from askel.state.store.scripts import Script, Scripts, load_scripts
from askel.state.store.server import (
    NOBODY,
    ServerFacts,
    lost_unread,
    probe_store,
    read_counts_of,
    why_unsafe,
)
from askel.state.store.settings import ConnectionSettings
from askel.state.store.trouble import PASSING, StoreTrouble, is_passing, trouble_of
from askel.state.sync.sync_service import SyncRedisWorkflowService
from askel.state.timers import TimerSweep
from askel.state.versions import VersionStatus, WorkflowVersion
from askel.state.writes.confirmation import Confirmed, Unconfirmed, confirmed_fields
from askel.state.writes.mirror import RunMirror

__all__ = [
    "CONFIRM_S",
    "GROUP",
    "NOBODY",
    "PASSING",
    "TERMINAL",
    "UNSET",
    "Activated",
    "Activations",
    "AesGcm",
    "ApprovalAt",
    "Attempts",
    "Begun",
    "Codec",
    "Confirmed",
    "Confirmer",
    "Connection",
    "ConnectionSettings",
    "Durability",
    "Entry",
    "GraphState",
    "HistoryEntry",
    "IdSource",
    "IfExists",
    "Keys",
    "MultiplexedConnection",
    "OpenStep",
    "PayloadTransform",
    "Place",
    "Recording",
    "RedisWorkflowService",
    "Refusal",
    "ReindexReport",
    "Renewed",
    "Retention",
    "RetentionPolicy",
    "RunFacts",
    "RunLock",
    "RunMirror",
    "RunPage",
    "RunStateAt",
    "RunStatus",
    "RunStatusReport",
    "RunTimeline",
    "Script",
    "Scripts",
    "Sealed",
    "SerializedError",
    "ServerFacts",
    "SignalAt",
    "StepAt",
    "StepAttempt",
    "StepDecision",
    "StepInstance",
    "StepOptions",
    "StepReport",
    "StepResult",
    "StepState",
    "StepStatus",
    "StoreTrouble",
    "StreamFacts",
    "Sweeping",
    "Swept",
    "SyncRedisWorkflowService",
    "SystemIds",
    "TimelineEvent",
    "TimerSweep",
    "Timers",
    "TokenSweep",
    "Turn",
    "Turned",
    "Unconfirmed",
    "VersionStatus",
    "Watching",
    "WorkflowRun",
    "WorkflowVersion",
    "Zstd",
    "as_durability",
    "as_policy",
    "build_report",
    "build_timeline",
    "check_compat",
    "codec",
    "confirmed_fields",
    "connect",
    "create_call",
    "decode_entries",
    "denied_commands",
    "fields_of",
    "fold_attempts",
    "from_ms",
    "idempotency_key",
    "is_passing",
    "load_scripts",
    "lost_unread",
    "owner_process",
    "probe_store",
    "quoted",
    "read_counts_of",
    "read_facts",
    "read_run",
    "read_secret",
    "read_step",
    "rearm_call",
    "reconstruct_state_at",
    "renew_call",
    "renewed",
    "run_id_of_command",
    "run_id_of_entry",
    "send_nudge",
    "started_body",
    "status_body",
    "step_body",
    "trouble_of",
    "why_unsafe",
]
