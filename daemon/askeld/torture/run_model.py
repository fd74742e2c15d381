"""One run as its history says it must be, and as its hashes say it is.

What is accepted is written down here, from the documented history alone; nothing is shared with
askel. A `Run` takes every entry of its history in order and names what no legal history has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from askeld.torture.invariants import Invariant

Report = Callable[[Invariant, str, "Run | None", str], None]

TERMINAL = frozenset({"completed", "failed", "cancelled"})
_RUN_MOVES = {
    "": {"running"},
    "running": {"suspended", "stalled", "completed", "failed", "cancelled"},
    "suspended": {"running", "failed", "cancelled"},
    "stalled": {"running", "failed", "cancelled"},
}
#: What may follow within one attempt, and what may begin the next one.
_STEP_MOVES = {
    "": {"pending", "scheduled", "running"},
    "pending": {"scheduled", "running", "succeeded", "failed"},
    "scheduled": {"running", "succeeded", "failed"},
    "running": {"succeeded", "failed", "lost", "suspended"},
    "suspended": {"running", "succeeded", "failed"},
}
_NEXT_ATTEMPT = {"failed": {"pending", "scheduled", "running"}, "lost": {"running"}}
_CLOSED = frozenset({"succeeded", "failed", "lost"})
#: What whoever decides must be woken for; what else a history holds.
_WAKES, _OTHERS = frozenset({"signal", "timer", "run"}), frozenset({"signal", "state", "approval"})
_NO_JSON = msgspec.Raw()


class Event(msgspec.Struct, gc=False):
    """One entry of a history: what the rules read of it."""

    t: str = ""
    at: int = 0
    status: str = ""
    name: str = ""
    attempt: int = 1
    final: bool = False
    seen: int | None = None
    due: int | None = None
    retries: int | None = None
    command: str = ""
    rpc: str = ""
    waits: bool = False
    result: msgspec.Raw = _NO_JSON
    error: msgspec.Raw = _NO_JSON
    output: msgspec.Raw = _NO_JSON


class Witness(msgspec.Struct, gc=False):
    """Who says to have computed a result: handlers of torture put it there, nobody else must."""

    attempt: int = 0
    pid: int = 0


_decode_event = msgspec.json.Decoder(Event).decode
_decode_witness = msgspec.json.Decoder(Witness).decode


class Step:
    """One step: what its history adds up to, and what its hash holds."""

    __slots__ = (
        "attempt",
        "due",
        "final",
        "fired",
        "has",
        "holder",
        "is_local",
        "json",
        "name",
        "nonce",
        "ran_nonce",
        "seen_statuses",
        "status",
        "waits",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.status, self.attempt, self.final = "", 1, False
        self.waits = False  # for a signal: then a turn may end it, too
        self.json = b""
        """The result or error that its history ends with."""
        self.seen_statuses: set[str] = set()
        self.has: dict[bytes, bytes] = {}
        """Its hash."""
        self.nonce = self.ran_nonce = b""
        self.is_local = False
        self.holder = b""
        self.due: int | None = None
        self.fired = False


class Run:
    """One run: what its history adds up to, and what its hashes and its lock hold."""

    __slots__ = (
        "base",
        "commands",
        "ctl",
        "digest",
        "ended",
        "former_bases",
        "has",
        "json",
        "length",
        "lock",
        "lock_until",
        "run_id",
        "seen",
        "status",
        "steps",
        "unseen",
        "waits",
    )

    def __init__(self, run_id: bytes) -> None:
        self.run_id = run_id
        self.status = ""
        self.ended = False
        self.json = b""
        self.length = 0
        self.digest = 0
        """Of all entries of its history."""
        self.seen = 0
        self.unseen: list[int] = []
        """Places of events that nothing says a turn has seen; since the last one that ended."""
        self.waits = False
        """Something happened since the token was given back, and nobody was woken."""
        self.has: dict[bytes, bytes] = {}
        self.ctl: dict[bytes, bytes] = {}
        self.lock: bytes | None = None
        self.lock_until = 0
        self.steps: dict[str, Step] = {}
        self.commands: set[str] = set()
        self.base = b""
        self.former_bases: set[bytes] = set()

    @property
    def is_managed(self) -> bool:
        """Whether daemons drive it."""
        return b"start" in self.ctl

    def step(self, name: str) -> Step:
        """Return its step *name*, made here if need be."""
        step = self.steps.get(name)
        if step is None:
            step = self.steps[name] = Step(name)
        return step

    def forget_owner(self) -> None:
        """Take what its owner sends for stale from now on."""
        if self.base:
            self.former_bases.add(self.base)
        self.base = b""

    def append(self, text: bytes, now: int, report: Report) -> Event | None:
        """Take one more entry of its history; None where that is not even one."""
        place, self.length = self.length, self.length + 1
        try:
            event = _decode_event(text)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            report(Invariant.PATH, "no_entry", self, f"entry {place} cannot be read: {error}")
            return None
        if self.ended or place == 0:
            self._check_place(event, place, report)
        if event.seen is not None:
            self._check_seen(event, place, report)
        elif event.t in _WAKES or event.final or event.status == "succeeded":
            self.unseen.append(place)
            self.waits = True
        if event.command:
            self._check_command(event.command, place, report)
        if event.t == "step":
            self._move_step(event, now, report)
        elif event.t == "run":
            self._move_run(event, place, report)
        elif event.t == "timer":
            self._fire(self.step(event.name), event, now, report)
        elif event.t not in _OTHERS:
            report(Invariant.PATH, "no_entry", self, f"entry {place} is about {event.t!r}")
        return event

    def _check_command(self, command: str, place: int, report: Report) -> None:
        if command in self.commands:
            told = f"command {command!r} again at {place}"
            report(Invariant.DEDUPE, "command_twice", self, told)
        self.commands.add(command)

    def _check_place(self, event: Event, place: int, report: Report) -> None:
        """Nothing comes before the run began, or after it ended."""
        if place == 0:
            if event.t != "run":
                report(Invariant.PATH, "run_path", self, "the history does not begin with the run")
            return
        what = f"entry {place} ({event.t} {event.status} {event.name!r}) after {self.status}"
        report(Invariant.FINAL, "after_end", self, what)
        if self.status == "cancelled" and event.status == "running":
            report(Invariant.CANCEL, "begun_after_cancel", self, what)

    def _check_seen(self, event: Event, place: int, report: Report) -> None:
        seen = event.seen or 0
        if not 0 < seen <= place or seen < self.seen:
            told = f"entry {place} has seen {seen}, one before it {self.seen}"
            report(Invariant.STALE, "seen", self, told)
        self.seen = max(self.seen, seen)
        if event.t == "run":
            if any(at >= seen for at in self.unseen):
                told = f"entry {place} ended the run having seen {seen} entries"
                report(Invariant.STALE, "ended_unseen", self, told)
            self.unseen.clear()

    def _move_run(self, event: Event, place: int, report: Report) -> None:
        if event.status not in _RUN_MOVES.get(self.status, ()) and not self.ended:
            told = f"{self.status!r} -> {event.status!r} at {place}"
            is_again = event.status == self.status
            report(*_AGAIN if is_again else (Invariant.PATH, "run_path"), self, told)
        self.status = event.status
        self.json = bytes(event.output or event.error)
        self.ended = self.ended or event.status in TERMINAL

    def _move_step(self, event: Event, now: int, report: Report) -> None:
        step = self.step(event.name)
        if not event.status:
            return  # a note: the attempt goes on as it was
        what = f"{event.name!r}: {event.status} {event.attempt} after {step.status} {step.attempt}"
        if event.attempt == step.attempt:
            if event.status in step.seen_statuses and event.status != "running":
                report(Invariant.ONCE, "duplicate", self, what)
            elif event.status not in _STEP_MOVES.get(step.status, ()):
                self._off_the_path(step, event, what, report)
        elif event.attempt == step.attempt + 1:
            if step.final or event.status not in _NEXT_ATTEMPT.get(step.status, ()):
                is_open = step.status not in _CLOSED
                kind = "two_open" if is_open else "step_path"
                report(Invariant.ATTEMPTS if is_open else Invariant.PATH, kind, self, what)
            step.seen_statuses.clear()
            step.due, step.fired = None, False
        else:
            report(Invariant.ATTEMPTS, "attempt_gap", self, what)
            step.seen_statuses.clear()
        if event.retries is not None and event.attempt > event.retries + 1:
            report(Invariant.BUDGET, "budget", self, f"{what}, with {event.retries} retries")
        step.waits = step.waits or event.waits
        by_timer = event.status == "succeeded" and not event.rpc
        by_timer = by_timer and (event.seen is None or not step.waits)
        if by_timer and step.due is not None:
            self._fire(step, event, now, report)
        step.status, step.attempt, step.final = event.status, event.attempt, event.final
        step.seen_statuses.add(event.status)
        step.due = event.due if event.due is not None else step.due
        step.json = bytes(event.result or event.error)
        step.is_local = event.status == "running" and event.seen is not None

    def _off_the_path(self, step: Step, event: Event, what: str, report: Report) -> None:
        if event.status == "running" and step.status == "running":
            report(Invariant.ONCE, "duplicate", self, what)
        else:
            report(Invariant.PATH, "step_path", self, what)

    def _fire(self, step: Step, event: Event, now: int, report: Report) -> None:
        what = f"of {step.name!r} attempt {event.attempt}"
        if step.due is None or event.attempt != step.attempt:
            report(Invariant.TIMER, "timer_unknown", self, f"{what} was never armed")
        elif step.fired:
            report(Invariant.TIMER, "timer_twice", self, what)
        elif step.due > max(event.at, now):
            report(Invariant.TIMER, "timer_early", self, f"{what} by {step.due - event.at} ms")
        step.fired = True

    def witness(self, step: Step, event: Event, report: Report) -> None:
        """Compare who computed a result, where it says so, with who began the attempt."""
        if b'"pid"' not in step.json:
            return
        try:
            who = _decode_witness(step.json)
        except msgspec.MsgspecError:
            return
        what = f"{step.name!r} attempt {event.attempt}"
        if who.attempt and who.attempt != event.attempt:
            told = f"{what} has the result of attempt {who.attempt}"
            report(Invariant.STALE, "stale_result", self, told)
        elif who.pid and step.holder and b"-%d-" % who.pid not in step.holder:
            told = f"{what} was begun by {step.holder.decode()}, process {who.pid} ended it"
            report(Invariant.STALE, "stale_result", self, told)

    def compare(self, report: Report) -> None:
        """Compare the run's hash with what its history adds up to."""
        has = self.has.get(b"status", b"").decode()
        if has != self.status:
            told = f"the hash says {has!r}, the history {self.status!r}"
            report(Invariant.FOLD, "run_hash", self, told)
        elif self.status in {"completed", "failed"}:
            outcome = b"output" if self.status == "completed" else b"error"
            if self.has.get(outcome, b"").strip() != self.json:
                told = f"its {outcome.decode()} is not what its history says"
                report(Invariant.FOLD, "run_hash", self, told)

    def compare_step(self, step: Step, report: Report) -> None:
        """Compare the hash of *step* with what its history adds up to."""
        status = "failed" if step.status == "lost" else step.status
        has = step.has.get(b"status", b"").decode()
        attempt = step.has.get(b"attemptCount", b"1")
        if has != status or attempt != b"%d" % step.attempt:
            told = f"{step.name!r} is {has} {attempt.decode()}, its history says {status} "
            report(Invariant.FOLD, "step_hash", self, told + str(step.attempt))
        elif status in _CLOSED:
            outcome = b"result" if status == "succeeded" else b"error"
            if step.has.get(outcome, b"").strip() != step.json:
                told = f"the {outcome.decode()} of {step.name!r} is not what its history says"
                report(Invariant.FOLD, "step_hash", self, told)

    def facts(self) -> dict[str, Any]:
        """Return what is known of it, for people: no payloads."""
        return {
            "status": self.status,
            "entries": self.length,
            "token": self.ctl.get(b"token", b"").decode(),
            "owner": self.ctl.get(b"owner", b"").decode(),
            "lock": (self.lock or b"").decode(),
            "steps": {s.name: f"{s.status} {s.attempt}" for s in self.steps.values()},
        }


_AGAIN = (Invariant.ONCE, "duplicate")
