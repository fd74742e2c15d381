"""What may be done to a state service: calls chosen by dice, most of them sensible, some not."""

from __future__ import annotations

import base64
import random
from typing import Any

from tests.properties.model import TERMINAL, Call, Model

from askel.state.ids import run_id_of_command

RUNS = ("a", "b")
STEPS = ("s", "t:é")
KEY_RUN = run_id_of_command("key")
POLICIES = ("reject", "return", "after-terminal", "terminate-existing")
FAULTS = ("lose_next_reply", "lose_next_request")
VALUES = (0, 1, [], {"é": None})
ERRORS = ({"message": "no"}, {"message": "never", "code": "E"})
#: Changes that name no step id.
WITHOUT_ID = {"insert_step_state", "update_run_status", "update_run_state"}
#: Each kind of change, as often as it is to be tried.
CHANGES = {
    "insert_step_state": 3,
    "set_step_scheduled": 3,
    "set_step_running": 4,
    "set_step_result": 3,
    "set_step_error": 6,
    "create_retry_attempt": 6,
    "set_branch_taken": 2,
    "set_step_child_run_id": 2,
    "update_run_status": 4,
    "update_run_state": 3,
}


class Deeds:
    """Makes calls for the runs of a model."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.dice = random.Random()
        self._ids = random.Random(7)
        self._known: dict[tuple[str, str], list[str]] = {}

    def new_id(self) -> str:
        return base64.urlsafe_b64encode(self._ids.randbytes(6)).decode()

    def note_ids(self) -> None:
        """Remember the ids that steps have now: later some are out of date."""
        for run in self.model.runs.values():
            for name, step in run.steps.items():
                known = self._known.setdefault((run.run_id, name), [])
                if step.step_id not in known:
                    known.append(step.step_id)

    def call(self, method: str, run: str, args: Any = (), **options: Any) -> Call:
        ids = [self.new_id() for _ in range(14)]
        if method == "create_run" and not run:
            ids[0] = f"new-{len(self.model.events)}-{ids[0].strip('-_')}"
        return Call(method, run, args, options, ids)

    def some_run(self) -> str:
        """Return a run, of ten times eight one that lives, if any does."""
        live = [run.run_id for run in self.model.runs.values() if run.status not in TERMINAL]
        if live and self.dice.random() < 0.8:
            return self.dice.choice(live)
        return self.dice.choice([*RUNS, "a.g1", "nobody", KEY_RUN])

    def creation(self) -> Call:
        run = self.dice.choice([*RUNS, *RUNS, "", KEY_RUN])
        args = (self.dice.choice(["w", "w", "u:x"]), self.dice.choice(VALUES))
        options = {"if_exists": self.dice.choice(POLICIES)} if run else {}
        if run == KEY_RUN:
            options["idempotency_key"] = "key"
        return self.call("create_run", run, args, **options)

    def deletion(self) -> Call:
        ended = [run for run in self.model.runs.values() if run.status in TERMINAL]
        locked = [run.run_id for run in ended if run.lock is not None]
        names = [*RUNS, self.some_run(), KEY_RUN, *(run.run_id for run in ended)]
        run = self.dice.choice(locked if locked and self.dice.random() < 0.5 else names)
        return self.call("delete_run", run, force=self.dice.random() < 0.3)

    def insertion(self, run: str, name: str) -> Call:
        value, retries = self.dice.choice(VALUES), self.dice.choice([None, 0, 1, 2, 2])
        return self.call("insert_step_state", run, (name, "f", value, retries))

    def change(self, run: str | None = None, method: str = "", name: str = "") -> Call:
        """Return one change of a run."""
        run, name = run or self.some_run(), name or self.dice.choice(STEPS)
        if not method:
            (method,) = self.dice.choices(list(CHANGES), list(CHANGES.values()))
        return self.call(method, run, self._arguments(method, run, name))

    def transaction(self) -> Call:
        """Return several changes, some of a step that was inserted just before.

        Many are about one and the same thing, and take it to and fro.
        """
        run = self.some_run()
        method = "update_run_status" if self.dice.random() < 0.2 else ""
        name = self.dice.choice(STEPS) if self.dice.random() < 0.6 else ""
        call = self.call("transaction", run)
        hand, inserted = iter(call.ids), {}
        for _ in range(self.dice.choice([0, 1, 2, 2, 3, 4])):
            part = self.change(run, method, name)
            if part.method == "insert_step_state":
                inserted[part.args[0]] = f"{run}:{part.args[0]}:{next(hand)}"
            elif part.method not in WITHOUT_ID and part.args[0] in inserted:
                part.args = (part.args[0], inserted[part.args[0]], *part.args[2:])
            if part.method == "create_retry_attempt":
                next(hand)
            call.parts.append(part)
        return call

    def _arguments(self, method: str, run: str, name: str) -> tuple[Any, ...]:
        dice = self.dice
        match method:
            case "insert_step_state":
                rpc_name = dice.choice(["f", "f", "f", "g"])
                return name, rpc_name, dice.choice(VALUES), dice.choice([None, 0, 1, 2, 2])
            case "update_run_status":
                return self._status(run)
            case "update_run_state":
                return dice.choice(["v", "w:é"]), dice.choice(VALUES)
            case "set_step_result":
                return name, self._step_id(run, name), dice.choice(VALUES)
            case "set_step_error":
                return name, self._step_id(run, name), dice.choice(ERRORS)
            case "create_retry_attempt":
                return name, self._step_id(run, name), dice.choice(["pending", "running"])
            case "set_branch_taken" | "set_step_child_run_id":
                return name, self._step_id(run, name), dice.choice(["left", "right"])
            case _:
                return name, self._step_id(run, name)

    def _status(self, run: str) -> tuple[str, Any, Any]:
        dice, current = self.dice, self.model.runs.get(run)
        status = dice.choice([*["running", "suspended"] * 3, "stalled", *sorted(TERMINAL)])
        if current is not None and current.status == "stalled" and dice.random() < 0.4:
            status = "completed"  # which it must not become
        if status == "completed":
            return status, dice.choice([*VALUES, None]), None
        error = None if status == "running" else dice.choice([None, *ERRORS])
        return status, None, error

    def _step_id(self, run: str, name: str) -> str:
        """Return the step's id; one time of twelve one that it had, or never had."""
        current = self.model.runs.get(run)
        if current is not None and name in current.steps and self.dice.random() < 0.92:
            return current.steps[name].step_id
        return self.dice.choice([*self._known.get((run, name), []), f"{run}:{name}:unknown"])
