"""Activations: owning a run, taking its turns, handing it back."""

from __future__ import annotations

import msgspec

from askel.state.models import IfExists
from askel.state.pikku.reading import name_steps
from askel.state.protocol.caller import GROUP, ProtocolCaller, Word, done, refusal
from askel.state.protocol.turns import Activated, Answer, Entry, Refusal, Turn, Turned


class Activations(ProtocolCaller):
    """The scripts by which one activation at a time decides on a run."""

    async def start(
        self,
        entry: Entry,
        owner: str,
        run_id: str,
        workflow: str,
        text: bytes,
        body: str,
        *,
        policy: IfExists = IfExists.REJECT,
        durability: str = "",
        command_id: str = "",
    ) -> Activated | Refusal:
        """Create the run that *entry* starts, as its owner; or own it again after a crash.

        Refused with LOST, GONE, EXISTS, CONFLICT, BUSY or POISON.
        """
        k = self.keys
        if policy.replaces and self._scripts.compat:
            await name_steps(self._scripts, k, run_id, self._patience_s)
        answer = await self._ask(
            "start",
            [
                *k.run_keys(run_id),
                entry.stream,
                k.events,
                k.runs,
                *k.generation_stems(),
            ],
            [
                GROUP,
                self.consumer,
                entry.id,
                owner,
                self._lease_ms,
                self._robbed_limit,
                self._offset,
                run_id,
                workflow,
                text,
                body,
                policy.value,
                k.queue_of(entry.stream),
                durability,
                msgspec.json.encode(command_id)[1:-1],
            ],
        )
        return _activated(answer, {"LOST", "GONE", "EXISTS", "CONFLICT", "POISON"})

    async def activate(self, entry: Entry, owner: str, run_id: str) -> Activated | Refusal:
        """Own the run whose token *entry* is. Refused with LOST, GONE, BUSY or POISON."""
        answer = await self._ask(
            "activate",
            [*self.keys.run_keys(run_id), entry.stream],
            [GROUP, self.consumer, entry.id, owner, self._lease_ms, self._robbed_limit],
        )
        return _activated(answer, {"LOST", "GONE", "POISON"})

    async def adopt(self, owner: str, run_id: str) -> Activated | Refusal:
        """Own an inline run. Refused with NOTFOUND, TERMINAL, MANAGED, BUSY or POISON."""
        answer = await self._ask(
            "adopt",
            self.keys.run_keys(run_id),
            [owner, self._lease_ms, self._robbed_limit],
        )
        return _activated(answer, {"NOTFOUND", "TERMINAL", "MANAGED", "POISON"})

    async def turn(self, turn: Turn, entry: Entry | None) -> Turned:
        """Take *turn* for the activation that *entry* drives (None: inline, keeps the lock)."""
        keys, args = self._pack(turn, entry)
        answer = await self._ask("turn", keys, args)
        word = answer[0].decode()
        if word in {"OK", "BEHIND"}:
            _, number, length, at, tail, status = answer
            return Turned(word, number, length, int(at), tail, status=status.decode())
        if word == "BUSY":
            return Turned(word, pttl=answer[1])
        assert word in {"END", "LOST", "GONE", "TERMINAL", "CONFLICT"}, f"turn answered {word}"
        return Turned(word)

    def _pack(self, turn: Turn, entry: Entry | None) -> tuple[list[str], list[Word]]:
        k, run_id = self.keys, turn.run_id
        keys = [
            *k.run_keys(run_id),
            entry.stream if entry else k.commands_default,
            k.timers,
            k.steps(run_id),
            k.events,
            k.runs,
        ]
        places: dict[str, int] = {}

        def place(key: str) -> int:
            if key not in places:
                keys.append(key)
                places[key] = len(keys)
            return places[key]

        args: list[Word] = [
            GROUP,
            entry.id if entry else "",
            turn.owner,
            turn.number,
            turn.seen,
            turn.nonce,
            turn.end,
            turn.outcome,
            turn.json,
            "0" if entry else "1",
            self._offset,
            run_id,
            len(turn.results),
        ]
        for r in turn.results:
            at = place(k.step(run_id, r.name))
            args += [at, r.expect, r.attempt, r.nonce, r.becomes, r.outcome, r.json, r.name]
            seen = r.seen if r.now is None else f'{r.seen},"now":{r.now}'
            args += ["1" if r.final else "0", seen, r.timer]
        args.append(len(turn.decisions))
        for d in turn.decisions:
            at = place(k.step(run_id, d.name))
            args += [at, d.expect, d.expect_attempt, d.becomes, d.attempt, d.nonce, d.name, d.body]
            args += ["" if d.delay_ms is None else d.delay_ms, d.timer]
            args += [place(d.queue) if d.queue else "", len(d.fields), *d.fields]
            args += [len(d.command), *d.command]
        return keys, args

    async def workflow_of(self, run_id: str) -> str | None:
        """Return the name of the run's workflow, or None when there is no such run."""
        name = await self._scripts.fetch("HGET", self.keys.run(run_id), "workflow")
        return None if name is None else str(name.decode())

    async def requeue(self, entry: Entry, owner: str, run_id: str) -> bool:
        """Hand the activation back for any process to take at once; False if it was not ours."""
        k = self.keys
        answer = await self._ask(
            "requeue",
            [k.ctl(run_id), k.lock(run_id), entry.stream, k.commands_default],
            [GROUP, entry.id, owner, run_id],
        )
        return done(answer, {"LOST"}) is None


def _activated(answer: Answer, words: set[str]) -> Activated | Refusal:
    if answer[0] == b"OK":
        _, turn, workflow, status, text, history = answer
        return Activated(turn, workflow.decode(), status.decode(), text, history)
    return refusal(answer, words)
