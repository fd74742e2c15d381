"""What a turn carries, and what the scripts of the run protocol answer: plain records."""

from __future__ import annotations

from typing import Any

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """One delivered stream entry: the stream it is on, its id, and its fields in order."""

    stream: str
    id: str
    fields: tuple[bytes, ...] = ()

    @property
    def sent_at(self) -> int:
        """When it was added, in milliseconds of the server's clock."""
        return int(self.id.split("-", 1)[0])


class Activated(msgspec.Struct, frozen=True):
    """The run is this owner's; ``history`` holds its entries as JSON text."""

    turn: int
    workflow: str
    status: str
    input: bytes
    history: list[bytes]


class Refusal(msgspec.Struct, frozen=True):
    """A script wrote nothing (or only dropped a settled entry). ``word`` says why.

    ``pttl`` is how long, in milliseconds, the lock that stood in the way may still live.
    """

    word: str
    pttl: int = 0
    detail: str = ""


class StepResult(msgspec.Struct):
    """One outcome in a turn.

    ``nonce`` ``*`` closes an attempt that another owner began. ``seen`` is the length of the
    history that the deciding code had seen when it was given the outcome: replay feeds in the same
    order. ``now`` is the time that the code was told then, if it asked. One that is not ``final``
    stands in the same turn as a decision on the same step. ``timer`` need not fire any more.
    """

    name: str
    expect: str
    attempt: int
    nonce: str
    becomes: str
    json: bytes
    seen: int
    final: bool = True
    now: int | None = None
    timer: bytes = b""

    @property
    def outcome(self) -> str:
        """The field that carries ``json``."""
        return "result" if self.becomes == "succeeded" else "error"


class StepDecision(msgspec.Struct):
    """One decision in a turn: what a step becomes, and the timer or command that goes with it.

    Args:
        expect: The status the step must have now; empty when it must not exist.
        body: The members of the history entry, JSON without braces.
        delay_ms: When given, ``timer`` (a command) is sent after it.
        queue: When given, the stream on which ``command`` is sent at once.
    """

    name: str
    expect: str
    expect_attempt: int | str
    becomes: str
    attempt: int
    nonce: str
    body: str
    fields: tuple[str | bytes | int, ...] = ()
    delay_ms: int | None = None
    timer: bytes = b""
    queue: str = ""
    command: tuple[str | bytes, ...] = ()


class Turn(msgspec.Struct):
    """Everything one turn changes. ``end`` is empty, ``passivate`` or the run's last status."""

    run_id: str
    owner: str
    number: int
    seen: int
    nonce: str
    results: list[StepResult]
    decisions: list[StepDecision]
    end: str = ""
    outcome: str = ""
    json: bytes = b""


class Turned(msgspec.Struct, frozen=True):
    """The answer to a turn.

    ``word`` is ``OK`` (goes on), ``END`` (landed, the activation is over), ``BEHIND`` (nothing
    written: decide again with the tail), or why it was refused. ``tail`` holds the entries from
    ``seen`` on, the turn's own included, at most 500.
    """

    word: str
    turn: int = 0
    length: int = 0
    at: int = 0
    tail: list[bytes] = []
    pttl: int = 0
    status: str = ""


class Begun(msgspec.Struct, frozen=True):
    """An attempt of a queued step was begun by this process; ``born``: of a run created then."""

    attempt: int
    retries: int
    retry_delay: str
    data: bytes
    born: str = ""


class Renewed(msgspec.Struct, frozen=True):
    """An entry is kept; ``length`` of the history and ``status`` of the run tell of news."""

    length: int
    status: str


Answer = list[Any]
