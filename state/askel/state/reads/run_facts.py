"""What a run waits for, as Redis knows it: read in one round trip, judged elsewhere."""

from __future__ import annotations

from typing import Any

import msgspec

from askel.state.keys import Keys
from askel.state.protocol.caller import GROUP, Word
from askel.state.reads.history import step_body
from askel.state.store.scripts import Scripts

_MOST_STEPS = 20
_REACH = 5_000
#: Has, as a consumer, what was found pending for nobody and taken up: see lua/include/nobody.lua.
NOBODY = "-nobody"
#: A consumer that was silent for longer than this reads no more: a worker asks every few seconds.
ALIVE_MS = 30_000


class Place(msgspec.Struct, frozen=True):
    """Where a stream entry is.

    ``word`` is ``pending`` (with consumer, milliseconds since it was renewed, and deliveries),
    ``waiting`` (nobody has read it), ``orphaned`` (it was read, and is pending for nobody), or
    ``gone``.
    """

    word: str
    queue: str = ""
    consumer: str = ""
    idle_ms: int = 0
    deliveries: int = 0

    @property
    def is_taken_up(self) -> bool:
        """Whether it was pending for nobody, and waits to be taken back or swept."""
        return self.consumer == NOBODY


class StreamFacts(msgspec.Struct, frozen=True):
    """A stream of commands: how many are on it, how many are in work, and who reads it.

    ``swept_ms`` is how long ago a worker last looked for work of the dead there, as every one of
    them does each second or so; None: never. Before Redis 7.2 a consumer's idle time goes on while
    its read waits, so that it tells of nobody that he is gone.
    """

    queue: str
    length: int
    pending: int
    has_group: bool
    idle_ms: dict[str, int]
    swept_ms: int | None = None

    @property
    def backlog(self) -> int:
        """How many commands nobody has read yet."""
        return max(self.length - self.pending, 0)

    @property
    def readers(self) -> list[str]:
        """The consumers that are surely alive."""
        return [name for name, idle in self.idle_ms.items() if idle < ALIVE_MS]

    @property
    def is_served(self) -> bool:
        """Whether a worker is there. One that ends in order takes its consumer with it."""
        is_swept = self.swept_ms is not None and self.swept_ms < ALIVE_MS
        return bool(self.readers) or bool(self.idle_ms and is_swept)


class OpenStep(msgspec.Struct, frozen=True):
    """A step that has not ended; ``lease`` is where the entry of its attempt is, if it has one.

    ``due`` is when its timer is due, None where there is none; ``fired``: its command is sent.
    ``signal`` is what a wait is for, for a time only if it ``is_limited``.
    """

    name: str
    status: str
    rpc_name: str
    attempt: int
    retries: int | None
    retry_delay: str
    queue: str
    updated_at: int
    lease: Place | None = None
    lease_entry: str = ""
    due: int | None = None
    fired: bool = False
    signal: str = ""
    is_limited: bool = False

    @property
    def is_local(self) -> bool:
        """Whether the process that drives the run executes it, too."""
        return self.status == "running" and not self.lease_entry


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All that says why a run is where it is. Times are milliseconds of the server's clock.

    ``start`` is empty for a run that no daemon drives; ``told`` are fields of the entry that is its
    token; ``open_count`` counts steps beyond those listed.
    """

    run_id: str
    now: int
    workflow: str
    status: str
    created_at: int
    updated_at: int
    error: bytes = b""
    inline: bool = False
    token: str = ""
    owner: str = ""
    start: str = ""
    turn: int = 0
    robbed: int = 0
    lock_holder: str = ""
    lock_pttl: int = 0
    length: int = 0
    place: Place | None = None
    told: dict[str, str] = {}
    open_count: int = 0
    steps: tuple[OpenStep, ...] = ()
    streams: dict[str, StreamFacts] = {}


async def read_facts(
    scripts: Scripts, keys: Keys, run_id: str, *, offset: int = 0, patience_s: float | None = None
) -> RunFacts | None:
    """Return the facts about a run, of one moment; None when there is no such run."""
    answer, _ = await scripts.insist(
        "read_facts",
        [
            *keys.run_keys(run_id),
            keys.steps(run_id),
            keys.step_stem(run_id),
            keys.commands_default,
            keys.sweep(),
        ],
        [GROUP, offset, _MOST_STEPS, _REACH],
        patience_s=patience_s,
    )
    if answer[0] == b"NOTFOUND":
        return None
    _, now, run, ctl, holder, pttl, length, token, told, count, steps, leases, streams = answer
    _, workflow, status, error, inline, created, updated = run
    texts = [_text(word) for word in ctl]
    return RunFacts(
        run_id=run_id,
        now=int(now),
        workflow=_text(workflow),
        status=_text(status),
        created_at=_number(created) or 0,
        updated_at=_number(updated) or 0,
        error=error or b"",
        inline=inline == b"true",
        token=texts[0],
        owner=texts[1],
        start=texts[2],
        turn=_number(ctl[3]) or 0,
        robbed=_number(ctl[4]) or 0,
        lock_holder=_text(holder),
        lock_pttl=pttl,
        length=length,
        place=_place(token) if token else None,
        told=dict(zip(map(_text, told[::2]), map(_text, told[1::2]), strict=True)),
        open_count=count,
        steps=tuple(_step(*pair) for pair in zip(steps, leases, strict=True)),
        streams={_text(item[0]): _stream(item, int(now)) for item in streams},
    )


def rearm_call(
    keys: Keys, run_id: str, step: OpenStep, timer: bytes, *, offset: int = 0, dry: bool = False
) -> tuple[str, list[str], list[Word]]:
    """Return the call of ``rearm``: it sets a timer that is gone again, or (*dry*) only looks."""
    return (
        "rearm",
        [
            keys.run(run_id),
            keys.ctl(run_id),
            keys.step(run_id, step.name),
            keys.history(run_id),
            keys.timers,
            keys.commands_default,
        ],
        [
            run_id,
            step.name,
            step.status,
            step.attempt,
            timer,
            step_body(step.name, step.status, step.attempt),
            _REACH,
            offset,
            "1" if dry else "0",
        ],
    )


def _place(words: list[Any]) -> Place:
    if words[0] != b"pending":
        return Place(_text(words[0]), queue=_text(words[1]) if len(words) > 1 else "")
    _, consumer, idle, deliveries, *queue = words
    return Place("pending", _text(queue[0]) if queue else "", _text(consumer), idle, deliveries)


def _step(words: list[Any], lease: list[Any]) -> OpenStep:
    name, status, rpc, attempt, retries, delay, entry, queue, updated, signal, timeout = words
    return OpenStep(
        name=_text(name),
        status=_text(status),
        rpc_name=_text(rpc),
        attempt=_number(attempt) or 1,
        retries=_number(retries),
        retry_delay=_text(delay),
        queue=_text(queue),
        updated_at=_number(updated) or 0,
        lease=_place(lease) if lease else None,
        lease_entry=_text(entry),
        signal=_text(signal),
        is_limited=timeout is not None,
    )


def _stream(words: list[Any], now: int) -> StreamFacts:
    queue, length, pending, has_group, members, swept = words
    idle = {_text(name): int(ms) for name, ms in zip(members[::2], members[1::2], strict=True)}
    at = _number(swept)
    swept_ms = None if at is None else max(now - at, 0)
    return StreamFacts(_text(queue), length, pending, has_group == 1, idle, swept_ms)


def _text(word: bytes | None) -> str:
    return word.decode("utf-8", "backslashreplace") if word else ""


def _number(word: bytes | None) -> int | None:
    return int(word) if word is not None and word.isdigit() else None
