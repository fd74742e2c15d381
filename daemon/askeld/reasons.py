"""Why a command that was refused becomes a dead letter: a word, and a sentence for people."""

from __future__ import annotations

from askel.state import Refusal
from askel.wire import Command, RunCreate, RunStart, StepExecute


def reason_of(command: Command, refusal: Refusal) -> tuple[str, str]:
    """Return the word and the sentence for the dead letter of a refused command."""
    run_id = command.run if isinstance(command, RunStart | RunCreate) else command.run_id
    match refusal.word:
        case "NOTFOUND":
            return "run_not_found", f"run {run_id!r} does not exist"
        case "TERMINAL":
            return "run_ended", f"run {run_id!r} has {refusal.detail} already"
        case "ILLEGAL":
            return "illegal_transition", f"run {run_id!r} is {refusal.detail}"
        case "EXISTS":
            return "run_exists", f"run {run_id!r} exists already"
        case "CONFLICT" if isinstance(command, StepExecute):
            detail = f"step {command.step_name!r} exists for another function"
            return "step_conflict", detail
        case "CONFLICT":
            return "run_conflict", f"run {run_id!r} exists with another workflow or input"
        case "FENCED":
            return "attempt_not_open", "the step has no open attempt of this number"
        case _:
            return refusal.word.lower(), refusal.detail
