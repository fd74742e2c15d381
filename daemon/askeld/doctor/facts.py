"""What the checks judge: plain values gathered in one go, so that each check is a pure function."""

from __future__ import annotations

import msgspec

from askel import RetentionPolicy

#: The layout of keys and fields that this version reads, as the meta key has it.
LAYOUT = "1"


class ConsumerFacts(msgspec.Struct, frozen=True):
    """One consumer of a group: a worker process, alive or dead."""

    name: str
    pending: int
    idle_ms: int


class StreamFacts(msgspec.Struct, frozen=True):
    """One stream of commands and its group.

    ``waiting``: entries nobody has read yet. ``swept_ms``: how long ago a worker swept it.
    """

    queue: str
    kind: str = "stream"
    has_group: bool = True
    length: int = 0
    waiting: int = 0
    waiting_ms: int = 0
    pending: int = 0
    silent_ms: int = 0
    deliveries: int = 0
    unknown_name_ms: int = 0
    consumers: tuple[ConsumerFacts, ...] = ()
    swept_ms: int | None = None

    @property
    def title(self) -> str:
        """How the stream is called in a sentence."""
        return f"queue {self.queue!r}" if self.queue else "the default stream"


class RunFacts(msgspec.Struct, frozen=True):
    """One run that was looked at.

    ``problem``: why it cannot be read. ``stray``: what is wrong with its index entries.
    """

    run_id: str
    status: str
    workflow: str = ""
    problem: str = ""
    stray: str = ""
    history: int = 0
    largest: int = 0
    lock_ms: int | None = None
    fields: tuple[str, ...] = ()


class Facts(msgspec.Struct):
    """Everything that was found out. None: the user may not ask, or the server does not say.

    ``refused`` are commands that the doctor itself was refused, ``denied`` those that a worker
    needs. ``is_worker`` says whether the user may take commands off a stream, so is a worker's.
    """

    where: str
    prefix: str
    now_ms: int = 0
    skew_ms: int = 0
    round_trip_ms: float = 0.0
    is_tls: bool = False
    is_verified: bool = True
    is_local: bool = True
    user: str = ""
    has_open_default: bool | None = None
    info: dict[str, str] = msgspec.field(default_factory=dict)
    config: dict[str, str] | None = None
    scripts_failed: dict[str, str] = msgspec.field(default_factory=dict)
    scripts: int = 0
    denied: dict[str, str] = msgspec.field(default_factory=dict)
    refused: set[str] = msgspec.field(default_factory=set)
    is_worker: bool = True
    meta: dict[str, str] = msgspec.field(default_factory=dict)
    streams: list[StreamFacts] = msgspec.field(default_factory=list)
    dead: int = 0
    dead_reasons: dict[str, int] = msgspec.field(default_factory=dict)
    overdue: int = 0
    overdue_ms: int = 0
    timers: int = 0
    schedules: int = 0
    statuses: dict[str, int] = msgspec.field(default_factory=dict)
    runs: list[RunFacts] = msgspec.field(default_factory=list)
    stuck: list[str] = msgspec.field(default_factory=list)
    ended: dict[str, int] = msgspec.field(default_factory=dict)
    oldest_ended_ms: dict[str, int] = msgspec.field(default_factory=dict)
    policies: dict[str | None, RetentionPolicy] = msgspec.field(default_factory=dict)
    wrong_types: dict[str, str] = msgspec.field(default_factory=dict)
    app_workflows: frozenset[str] | None = None
    compat: str | None = None

    def number(self, name: str) -> int | None:
        """Return a number of INFO, None where the server does not tell it."""
        text = self.info.get(name, "")
        return int(text) if text.lstrip("-").isdigit() else None

    def setting(self, name: str) -> str | None:
        """Return a setting of CONFIG GET, None where the user may not ask."""
        return None if self.config is None else self.config.get(name)
