"""Replays what a server wrote down, transition by transition, and holds it to the invariants.

Only the keys that the invariants are about are modelled: runs, steps, control hashes, histories,
locks, streams of commands, timers, dead letters. Indexes and events pass by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise
from zlib import crc32

from askeld.torture.aof import Transition, Words
from askeld.torture.command_model import Entry, Pairs
from askeld.torture.invariants import Invariant, Violation
from askeld.torture.run_model import Run
from askeld.torture.transition import Changes
from askeld.torture.transition_rules import World, check, note_start

_MOST_VIOLATIONS = 1_000
_STEM_KINDS = (b"run", b"ctl", b"history", b"steps", b"run-state", b"step")
_REWRITES = (b"LSET", b"LREM", b"LTRIM", b"LPOP", b"RPOP", b"LPUSH", b"LINSERT")
_BASE = 8
"""How many characters the nonces of one activation begin with alike."""
#: How many rules an entry of a history, a run and an entry of a stream are held to.
_RULES_OF_EVENT, _RULES_OF_RUN, _RULES_OF_ENTRY = 9, 6, 4

Handler = Callable[[bytes, Words], None]


class Replay:
    """The state of one deployment, built from its transitions, and what was wrong with them.

    Args:
        prefix: The deployment's key prefix.
        max_deliveries: How often an entry may be delivered before it must be a dead letter; None
            where that is not known.
        is_atomic: Whether hash and history change in one transition, as askel's do; the control
            of a torture run does not, and its hashes are compared at the end.
    """

    def __init__(
        self, prefix: str, *, max_deliveries: int | None = None, is_atomic: bool = True
    ) -> None:
        self.prefix = prefix.encode() + b":"
        self.world = World(self.report, is_atomic=is_atomic)
        self.violations: list[Violation] = []
        self.kinds: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.transition = 0
        self.evaluated = 0
        self._max_deliveries = max_deliveries
        self._is_judging = True
        self._changes = Changes()
        self._handlers = self._table()

    def play(self, transitions: Iterable[Transition]) -> None:
        """Take all *transitions*, one after the other."""
        prefix, length, handlers = self.prefix, len(self.prefix), self._handlers
        changes = self._changes
        for transition in transitions:
            self.transition += 1
            foreign = 0
            for words in transition:
                by_kind = handlers.get(words[0])
                if by_kind is None:
                    continue
                key = words[1]
                if not key.startswith(prefix):
                    foreign += 1
                    continue
                kind, _, rest = key[length:].partition(b":")
                handler = by_kind.get(kind)
                if handler is not None:
                    handler(rest, words)
            if changes.is_dirty:
                self._end(foreign)
                changes.clear()

    def play_base(self, commands: Iterable[Words]) -> None:
        """Take the state that a rewritten file begins with: nothing of it is judged."""
        self._is_judging = False
        self.play([list(commands)])
        self._is_judging = True
        self.transition = self.evaluated = 0
        self.counts.clear()

    def finish(self) -> None:
        """Compare at the end what was not compared after every transition."""
        if not self.world.is_atomic:
            for run in self.world.runs.values():
                run.compare(self.report)
                for step in run.steps.values():
                    run.compare_step(step, self.report)

    def report(self, invariant: Invariant, kind: str, run: Run | None, detail: str) -> None:
        """Note a violation; beyond a thousand they are only counted."""
        if not self._is_judging:
            return
        self.kinds[kind] += 1
        if len(self.violations) < _MOST_VIOLATIONS:
            run_id = "" if run is None else run.run_id.decode(errors="replace")
            name = invariant.value.partition(":")[0]
            self.violations.append(Violation(name, kind, run_id, detail, self.transition))

    def _end(self, foreign: int) -> None:
        changes = self._changes
        if foreign:
            told = f"{foreign} commands on keys outside {self.prefix.decode()}"
            self.report(Invariant.TENANT, "foreign_key", None, told)
        check(self.world, changes)
        self.evaluated += _RULES_OF_EVENT * len(changes.events) + _RULES_OF_RUN * len(changes.runs)
        self.evaluated += _RULES_OF_ENTRY * (len(changes.removed) + len(changes.added))

    # One command; the key's prefix and kind are known already.

    def _run(self, run_id: bytes) -> Run:
        run = self.world.runs.get(run_id)
        if run is None:
            run = self.world.runs[run_id] = Run(run_id)
        self._changes.runs[run] = None
        self._changes.is_dirty = True
        return run

    def _table(self) -> dict[bytes, dict[bytes, Handler]]:
        return {
            b"RPUSH": {b"history": self._on_history},
            b"HSET": {b"run": self._on_run, b"step": self._on_step, b"ctl": self._on_ctl},
            b"HDEL": {b"run": self._on_unset, b"step": self._on_unset, b"ctl": self._on_unset_ctl},
            b"HINCRBY": {b"ctl": self._on_fence},
            b"SET": {b"lock": self._on_lock},
            b"PEXPIREAT": {b"lock": self._on_lock_time},
            b"XADD": {b"commands": self._on_add, b"dead": self._on_dead},
            b"XCLAIM": {b"commands": self._on_claim},
            b"XACK": {b"commands": self._on_ack},
            b"XDEL": {b"commands": self._on_remove},
            b"XTRIM": {b"commands": self._on_trim},
            b"ZADD": {b"timers": self._on_arm},
            b"ZREM": {b"timers": self._on_disarm},
            b"DEL": dict.fromkeys((*_STEM_KINDS, b"lock", b"commands"), self._on_del),
            b"UNLINK": dict.fromkeys((*_STEM_KINDS, b"lock", b"commands"), self._on_del),
            b"RENAME": dict.fromkeys(_STEM_KINDS, self._on_rename),
            **{name: {b"history": self._on_rewritten} for name in _REWRITES},
        }

    def _on_history(self, rest: bytes, words: Words) -> None:
        run, changes, world = self._run(rest), self._changes, self.world
        for text in words[2:]:
            event = run.append(text, world.now, self.report)
            run.digest = crc32(text, run.digest)
            if event is not None:
                world.now = max(world.now, event.at)
                changes.events.append((run, event))
                self.counts[event.status if event.t == "step" else event.t] += 1
                if event.t == "step":
                    changes.steps[run.step(event.name)] = run

    def _on_rewritten(self, rest: bytes, words: Words) -> None:
        told = f"{words[0].decode()} on its history"
        self.report(Invariant.PATH, "history_rewritten", self._run(rest), told)

    def _on_run(self, rest: bytes, words: Words) -> None:
        run, fields = self._run(rest), _pairs(words, 2)
        if b"changes" in fields:
            self._changes.written.add(rest)
        if self._ended_before(run):
            for name in (b"status", b"output", b"error", b"input"):
                if name in fields and fields[name] != run.has.get(name):
                    told = f"{name.decode()} was written after it had {run.status}"
                    self.report(Invariant.FINAL, "after_end", run, told)
        run.has.update(fields)

    def _on_step(self, rest: bytes, words: Words) -> None:
        run_id, _, name = rest.partition(b":")
        run = self._run(run_id)
        step = run.step(name.decode(errors="replace"))
        if self._ended_before(run) and run_id not in self._changes.renamed:
            told = f"step {step.name!r} was written after it had {run.status}"
            self.report(Invariant.FINAL, "after_end", run, told)
        step.has.update(_pairs(words, 2))
        step.nonce = step.has.get(b"nonce", b"")
        self._changes.steps[step] = run

    def _ended_before(self, run: Run) -> bool:
        return run.ended and not any(run is of for of, _ in self._changes.events)

    def _on_ctl(self, rest: bytes, words: Words) -> None:
        run, fields = self._run(rest), _pairs(words, 2)
        token, owner = run.ctl.get(b"token"), run.ctl.get(b"owner")
        if token is not None and fields.get(b"token", token) != token:
            self._changes.tokens[token] = run
        if b"fence" in fields and int(fields[b"fence"]) < int(run.ctl.get(b"fence", b"0")):
            self.report(Invariant.FENCE, "fence_back", run, "its fence went back")
        if b"last" in fields:
            self._on_turn(run, fields)
        if fields.get(b"owner", owner) != owner:
            self._changes.owners.setdefault(run, owner)
            run.forget_owner()
        run.ctl.update(fields)
        if b"start" in fields:
            note_start(self.world, run)

    def _on_turn(self, run: Run, fields: Pairs) -> None:
        self._changes.turn = run
        self.counts["turns"] += 1
        number, expected = int(fields.get(b"turn", b"0")), int(run.ctl.get(b"turn", b"0")) + 1
        if number != expected:
            told = f"turn {number} instead of {expected}"
            self.report(Invariant.STALE, "turn_number", run, told)
        if b"owner" not in run.ctl:
            told = f"turn {number} of a run without an owner"
            self.report(Invariant.STALE, "no_owner", run, told)
        base = fields[b"last"][:_BASE]
        if base in run.former_bases or (run.base and base != run.base):
            told = f"turn {number} is of an activation that is no longer the owner"
            self.report(Invariant.STALE, "stale_turn", run, told)
        run.base = base

    def _on_unset(self, rest: bytes, words: Words) -> None:
        run_id, _, name = rest.partition(b":")
        run = self._run(run_id)
        has = run.has
        if name:
            step = run.step(name.decode(errors="replace"))
            self._changes.steps[step] = run
            has = step.has
        for field in words[2:]:
            has.pop(field, None)

    def _on_unset_ctl(self, rest: bytes, words: Words) -> None:
        run = self._run(rest)
        for field in words[2:]:
            if field == b"token" and field in run.ctl:
                self._changes.tokens[run.ctl[field]] = run
                # A turn that gives the token back has seen all there was.
                run.waits = run.waits and self._changes.turn is None
            if field == b"owner" and field in run.ctl:
                run.forget_owner()
            run.ctl.pop(field, None)

    def _on_fence(self, rest: bytes, words: Words) -> None:
        if words[2] != b"fence":
            return
        run, by = self._run(rest), int(words[3])
        if by < 1:
            self.report(Invariant.FENCE, "fence_back", run, f"its fence was changed by {by}")
        run.ctl[b"fence"] = b"%d" % (int(run.ctl.get(b"fence", b"0")) + by)
        self._changes.fences.add(rest)

    def _on_lock(self, rest: bytes, words: Words) -> None:
        run = self._run(rest)
        holder, until = words[2], _expiry(words, self.world.now)
        owner = self._changes.owners.get(run, run.ctl.get(b"owner"))
        # A lock that would outlive the new one is a clock's mistake, and may be taken.
        if run.lock is not None and run.lock not in {holder, owner} and until >= run.lock_until:
            told = f"{holder.decode(errors='replace')} took it from {run.lock.decode()}"
            self.report(Invariant.STALE, "lock_taken", run, told)
        self._changes.locks.append((run, holder, run.lock if run.lock is not None else owner))
        run.lock, run.lock_until = holder, until

    def _on_lock_time(self, rest: bytes, words: Words) -> None:
        self._run(rest).lock_until = int(words[2])

    def _on_add(self, rest: bytes, words: Words) -> None:
        entry_id, fields = _added(words)
        self.world.now = max(self.world.now, int(entry_id.partition(b"-")[0]))
        entry = Entry(entry_id, fields)
        self.world.streams.add(rest, entry)
        self._changes.added.append(entry)
        self._changes.is_dirty = True

    def _on_dead(self, _rest: bytes, words: Words) -> None:
        _, fields = _added(words)
        self._changes.buried.add(fields.get(b"entry", b""))
        self.counts["dead letters"] += 1

    def _on_claim(self, rest: bytes, words: Words) -> None:
        live = self.world.streams.live.get(rest)
        entry = None if live is None else live.get(words[5])
        if entry is None:
            return
        entry.consumer = words[3]
        count = int(words[words.index(b"RETRYCOUNT") + 1])
        if count > entry.deliveries and entry.deliveries:
            self.counts["redelivered"] += 1
        entry.deliveries = count
        limit = self._max_deliveries
        if limit is not None and count > limit and entry.kind == b"step.execute":
            told = f"step.execute {entry.id.decode()} was delivered {count} times"
            self.report(Invariant.POISON, "delivered_on", self.world.runs.get(entry.run_id), told)

    def _on_ack(self, rest: bytes, words: Words) -> None:
        self._changes.acked += [(rest, entry_id) for entry_id in words[3:]]
        self._changes.is_dirty = True

    def _on_remove(self, rest: bytes, words: Words) -> None:
        for entry_id in words[2:]:
            entry = self.world.streams.remove(rest, entry_id)
            if entry is not None:
                self._changes.removed.append((rest, entry))
        self._changes.is_dirty = True

    def _on_trim(self, _rest: bytes, words: Words) -> None:
        told = f"{words[0].decode()} on {words[1].decode(errors='replace')}"
        self.report(Invariant.ENTRY, "vanished", None, told)

    def _on_arm(self, _rest: bytes, words: Words) -> None:
        for score, member in zip(words[2::2], words[3::2], strict=True):
            self.world.streams.timers[member] = float(score)
            self._changes.armed.append(member)
        self._changes.is_dirty = True

    def _on_disarm(self, _rest: bytes, words: Words) -> None:
        for member in words[2:]:
            due = self.world.streams.timers.pop(member, None)
            if due is not None:
                self._changes.disarmed.append((member, due))
        self._changes.is_dirty = True

    def _on_del(self, _rest: bytes, words: Words) -> None:
        """Take a lock away that was given back or has expired, or a run as a whole."""
        length = len(self.prefix)
        parts = [key[length:].partition(b":") for key in words[1:]]
        gone = {of for kind, _, of in parts if kind == b"run"}
        for kind, _, of in parts:
            run_id, _, name = of.partition(b":")
            run = self.world.runs.get(run_id)
            if kind == b"commands":
                self._on_trim(of, words)
            elif run is None:
                continue
            elif kind == b"lock":
                run.lock = None
            elif kind == b"step":
                step = run.step(name.decode(errors="replace"))
                step.has.clear()
                self._changes.steps[step] = run
                self._changes.is_dirty = True
            elif kind in {b"history", b"ctl"} and run_id not in gone and run.length:
                told = f"its {kind.decode()} was removed, and it was not"
                self.report(Invariant.PATH, "history_rewritten", run, told)
        for run_id in gone & self.world.runs.keys():
            run = self.world.runs.pop(run_id)
            self.world.deleted[run_id] = (run.status, run.json)

    def _on_rename(self, rest: bytes, words: Words) -> None:
        """Move a run that gives its id to its next generation, as a whole, at its first key."""
        runs, run_id = self.world.runs, rest.partition(b":")[0]
        former = words[2][len(self.prefix) :].partition(b":")[2].partition(b":")[0]
        run = runs.get(run_id)
        if run is None or former in runs:
            return
        heir = runs[run_id] = Run(run_id)
        heir.ctl[b"fence"] = run.ctl.get(b"fence", b"0")
        run.run_id = former
        runs[former] = run
        self._changes.renamed |= {run_id, former}
        self._changes.runs[run] = None
        self._changes.is_dirty = True


def _pairs(words: Words, at: int) -> Pairs:
    return dict(zip(words[at::2], words[at + 1 :: 2], strict=True))


def _added(words: Words) -> tuple[bytes, Pairs]:
    """Return the id and the fields of an XADD: options stand before the id."""
    at = 2
    while words[at] in {b"NOMKSTREAM", b"MAXLEN", b"MINID", b"LIMIT"}:
        at += 1 if words[at] == b"NOMKSTREAM" else 3 if words[at + 1] in {b"=", b"~"} else 2
    return words[at], _pairs(words, at + 1)


def _expiry(words: Words, now: int) -> int:
    given = dict(pairwise(words[3:]))
    return int(given[b"PXAT"]) if b"PXAT" in given else now + int(given.get(b"PX", b"0"))
