"""The streams of commands and the timers: what was sent, and what became of each entry."""

from __future__ import annotations

import msgspec

from askeld.torture.invariants import Invariant
from askeld.torture.run_model import Report, Run

Pairs = dict[bytes, bytes]

_TARGETS = {
    b"run.cancel": "cancelled",
    b"run.terminate": "cancelled",
    b"run.suspend": "suspended",
    b"run.resume": "running",
    b"run.complete": "completed",
    b"run.fail": "failed",
}
_STARTS = (b"run.start", b"run.create")
_DRIVES = (b"run.start", b"run.advance")


class Entry:
    """One command on a stream that nobody has settled yet."""

    __slots__ = (
        "attempt",
        "born",
        "consumer",
        "deliveries",
        "id",
        "key",
        "kind",
        "op",
        "run_id",
        "step",
    )

    def __init__(self, entry_id: bytes, fields: Pairs) -> None:
        get = fields.get
        self.id = entry_id
        self.kind = get(b"type", b"")
        self.op = get(b"id", b"")
        self.run_id = get(b"run_id", b"")
        # A command id means one command of its run; a start may not name the run yet.
        is_start = self.kind in _STARTS
        self.key = self.op and (self.op if is_start else self.run_id + b" " + self.op)
        self.step = get(b"step_name", b"").decode(errors="replace")
        self.attempt = get(b"attempt", b"1")
        self.born = get(b"born", b"")
        self.consumer = b""
        self.deliveries = 0


def op_key(op: str, kind: str, run_id: str) -> bytes:
    """Return the key of `Streams.fates` for the command *op* of the client's log."""
    return op.encode() if kind.encode() in _STARTS else f"{run_id} {op}".encode()


class Fate(msgspec.Struct, gc=False):
    """What became of one command id, over all entries that carried it."""

    kind: str = ""
    sent: int = 0
    live: int = 0
    applied: int = 0
    dead: int = 0
    silent: int = 0


class Streams:
    """Every stream of commands of a deployment, and its timers."""

    def __init__(self) -> None:
        self.live: dict[bytes, dict[bytes, Entry]] = {}
        self.fates: dict[bytes, Fate] = {}
        self.timers: dict[bytes, float] = {}
        self.sent = self.settled = self.dead = 0

    def add(self, stream: bytes, entry: Entry) -> None:
        """Take one more entry."""
        self.live.setdefault(stream, {})[entry.id] = entry
        self.sent += 1
        if entry.op:
            fate = self.fates.get(entry.key)
            if fate is None:
                fate = self.fates[entry.key] = Fate(entry.kind.decode(errors="replace"))
            fate.sent += 1
            fate.live += 1

    def remove(self, stream: bytes, entry_id: bytes) -> Entry | None:
        """Forget an entry that is on *stream* no longer."""
        entry = self.live.get(stream, {}).pop(entry_id, None)
        if entry is not None and entry.op:
            self.fates[entry.key].live -= 1
        return entry

    def find_token(self, entry_id: bytes, run_id: bytes) -> Entry | None:
        """Return the entry with this id that may drive *run_id*, on whichever stream it is.

        Streams give out their ids each on its own: another entry may have the same.
        """
        for entries in self.live.values():
            entry = entries.get(entry_id)
            if entry is not None and entry.kind in _DRIVES and entry.run_id in {b"", run_id}:
                return entry
        return None

    def find_lease(self, entry_id: bytes, run_id: bytes, step: str) -> Entry | None:
        """Return the command with this id to execute *step* of *run_id*."""
        for entries in self.live.values():
            entry = entries.get(entry_id)
            if entry is not None and entry.run_id == run_id and entry.step == step:
                return entry
        return None

    def armed_ops(self) -> set[str]:
        """Return the ids of commands that wait for their time."""
        found = set()
        for member in self.timers:
            words = msgspec.json.decode(member, type=list[str])[1:]
            found.add(dict(zip(words[::2], words[1::2], strict=False)).get("id", ""))
        return found - {""}

    def applied(self, entry: Entry, report: Report, run: Run | None) -> None:
        """Note that the command of *entry* took effect."""
        fate = self._fate(entry)
        fate.applied += 1
        # A step that is tried again is the same command; its attempts are counted elsewhere.
        if fate.applied > 1 and entry.kind != b"step.execute":
            report(Invariant.COMMAND, "applied_twice", run, f"command {entry.op!r} {entry.kind!r}")
        self._not_both(entry, fate, report, run)

    def buried(self, entry: Entry, report: Report, run: Run | None) -> None:
        """Note that *entry* became a dead letter."""
        self.dead += 1
        fate = self._fate(entry)
        fate.dead += 1
        self._not_both(entry, fate, report, run)

    def silent(self, entry: Entry, run: Run | None, *, was_deleted: bool, report: Report) -> None:
        """Note that *entry* was settled and nothing else: then there must be a reason."""
        self._fate(entry).silent += 1
        if not was_deleted and not _needs_nothing(entry, run):
            told = f"{entry.kind.decode(errors='replace')} {entry.op or entry.id!r} has no effect"
            report(Invariant.COMMAND, "dropped", run, told)

    def _fate(self, entry: Entry) -> Fate:
        return self.fates[entry.key] if entry.op else Fate()

    def _not_both(self, entry: Entry, fate: Fate, report: Report, run: Run | None) -> None:
        # A start that was sent twice made its run, and then found it there.
        if fate.applied and fate.dead and entry.kind not in (*_STARTS, b"step.execute"):
            told = f"command {entry.op!r} was applied and is a dead letter"
            report(Invariant.COMMAND, "applied_and_dead", run, told)


def _needs_nothing(entry: Entry, run: Run | None) -> bool:
    """Tell whether the command has nothing to do (any more) where *run* is as it is."""
    if entry.kind == b"run.advance":
        return True  # whether its run still needs it, is the token's rule
    if run is None:
        return entry.kind == b"timer.fire"
    if entry.kind in _STARTS or b"since" in run.has:
        return True
    if entry.op and entry.op.decode(errors="replace") in run.commands:
        return True
    if entry.kind in _TARGETS:
        return run.status == _TARGETS[entry.kind]
    return entry.kind.startswith((b"step.", b"timer.")) and _step_needs_nothing(entry, run)


def _step_needs_nothing(entry: Entry, run: Run) -> bool:
    step = run.steps.get(entry.step)
    if run.ended:
        return True
    if step is None:
        return False
    if entry.kind != b"timer.fire":
        return step.status in {"succeeded", "failed", "lost", "running"}
    is_awaited = step.status in {"scheduled", "pending"} and b"%d" % step.attempt == entry.attempt
    return not is_awaited or (bool(entry.born) and entry.born != run.has.get(b"createdAt"))
