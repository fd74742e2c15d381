"""Creating runs: under a new id or a given one, once however often it is asked for."""

from __future__ import annotations

from typing import Any

from askel.errors import (
    InvalidNameError,
    InvalidOptionError,
    LockLostError,
    LockNotAcquiredError,
    RunExistsError,
)
from askel.names import check_name, check_run_id
from askel.state.arguments import as_policy
from askel.state.codec import PLAIN, Codec
from askel.state.durability import Durability, as_durability
from askel.state.ids import IdSource, run_id_of_command
from askel.state.keys import Keys
from askel.state.locks.run_lock import holder_for
from askel.state.models import IfExists
from askel.state.pikku.reading import name_steps
from askel.state.protocol.recording import Terms, create_call
from askel.state.reads.history import started_body
from askel.state.store.scripts import Scripts
from askel.state.writes.confirmation import RunConfirmation, confirmed_fields
from askel.state.writes.mirror import MirrorTeller

_LONGEST_ID = 120
_WHY = {
    IfExists.REJECT: "exists already; choose another run_id or if_exists",
    IfExists.RETURN: "exists already, created for another workflow or input; choose another id",
    IfExists.AFTER_TERMINAL: "has not ended; wait for its end, or terminate it",
    IfExists.TERMINATE_EXISTING: "exists already; choose another run_id",
}


class RunCreation(RunConfirmation):
    """Creating runs, each in one atomic step."""

    keys: Keys
    ids: IdSource
    codec: Codec
    mirror: MirrorTeller
    compat: str | None = None
    scripts: Scripts
    clock_offset_ms: int
    resend_s: float

    async def create_run(
        self,
        workflow_name: str,
        input: Any = None,
        *,
        run_id: str | None = None,
        idempotency_key: str | None = None,
        inline: bool = False,
        graph_hash: str | None = None,
        wire: Any = None,
        deterministic: bool = False,
        planned_steps: Any = None,
        if_exists: IfExists | str = IfExists.REJECT,
        durability: Durability | str | None = None,
    ) -> str:
        """Create a run in status ``running`` and return its id; one atomic step.

        The run is driven by whoever calls the service; to have daemons drive a workflow, start it
        with ``App.start`` or a ``run.start`` command.

        Args:
            workflow_name: The workflow.
            input: Its input.
            run_id: The id to give it; a new one by default.
            idempotency_key: Makes the id from this text instead: called again with the same key,
                workflow and input the run that exists is returned, with others it is a conflict.
            inline: Whether the run is for the calling process alone.
            graph_hash: The version of the definition, for readers.
            wire: Where the call came from, for readers. Never sealed.
            deterministic: For readers.
            planned_steps: For readers. Never sealed.
            if_exists: What becomes of a run that has the id; see ``IfExists``.
            durability: ``fsync`` or ``replicated(n)``: confirmed before this returns, as its end.

        Raises:
            NotConfirmedError: The run was created, and may yet be lost.
            RunExistsError: The run exists and *if_exists* does not let it give way, or it was
                created for another workflow or input.
            LockNotAcquiredError, LockLostError: The run that is to give way is another's to lock.
            StoreUnsafeError, InvalidNameError, InvalidOptionError, PayloadError: Nothing was sent.
        """
        policy = as_policy(if_exists)
        if idempotency_key is not None and policy is IfExists.REJECT:
            policy = IfExists.RETURN
        facts: dict[str, Any] = {"inline": inline, "graph_hash": graph_hash, "wire": wire}
        facts |= {"deterministic": deterministic, "planned_steps": planned_steps}
        is_named = run_id is not None or idempotency_key is not None
        run_id = self._id_of_new(run_id, idempotency_key, policy)
        level = as_durability(durability)
        await self._create(workflow_name, run_id, input, policy, facts, level, is_named=is_named)
        await self.mirror.tell("create_run", run_id, workflow_name, input, **facts)
        if level:
            await confirmed_fields(self, run_id, level)
        return run_id

    async def _create(
        self,
        workflow: str,
        run_id: str,
        input: Any,
        policy: IfExists,
        facts: dict[str, Any],
        level: Durability,
        *,
        is_named: bool,
    ) -> None:
        await self.confirmer.check(level)
        payload = self.codec.encode(input)
        call = create_call(
            self.keys,
            run_id,
            check_name(workflow, "workflow name"),
            payload,
            started_body(workflow),
            offset=self.clock_offset_ms,
            terms=Terms(self.ids.suffix() if is_named else "", policy, holder_for(self, run_id)),
            fields=_fields(facts, level),
        )
        if self.compat and policy.replaces:
            await name_steps(self.scripts, self.keys, run_id, self.resend_s)
        answer, resent = await self.scripts.insist(*call, patience_s=self.resend_s)
        if answer[0] == b"BUSY":
            raise LockNotAcquiredError(run_id, 0)
        if answer[0] == b"LOCKLOST":
            raise LockLostError(run_id)
        # A new id that exists after a lost reply is of the copy that was applied.
        is_ours = answer[0] == b"OK" or (resent and not is_named)
        if not is_ours and not (
            policy is IfExists.RETURN
            and (answer[0] == b"EXISTS" or await self._is_same(run_id, workflow, payload))
        ):
            raise RunExistsError(run_id, _WHY[policy])

    def _id_of_new(self, run_id: str | None, key: str | None, policy: IfExists) -> str:
        if run_id is not None and key is not None:
            msg = "give a run_id or an idempotency_key, not both"
            raise InvalidOptionError(msg)
        if key is not None:
            return run_id_of_command(check_name(key, "idempotency key"))
        if run_id is None:
            return self.ids.run_id()
        check_run_id(run_id)
        if policy.replaces and len(run_id) > _LONGEST_ID:
            msg = f"a run id of {len(run_id)} characters leaves no room for the names of former "
            msg += f"generations, {{id}}.g1 and so on: use at most {_LONGEST_ID}"
            raise InvalidNameError(msg)
        return run_id

    async def _is_same(self, run_id: str, workflow: str, payload: bytes) -> bool:
        """Tell whether the run was created for this workflow and input, sealed by whatever key."""
        stored = await self.scripts.fetch(
            "HMGET", self.keys.run(run_id), "workflow", "input", patience_s=self.resend_s
        )
        if None in stored:
            return False
        return bool(stored[0].decode() == workflow and self.codec.is_same(stored[1], payload))


def _fields(facts: dict[str, Any], level: Durability) -> list[str | bytes]:
    """Return the further fields of the run's hash, as the Node service reads them."""
    fields: list[str | bytes] = ["durability", str(level)] if level else []
    if facts["inline"]:
        fields += ["inline", "true"]
    if facts["graph_hash"]:
        fields += ["graphHash", check_name(facts["graph_hash"], "graph hash")]
    if facts["deterministic"]:
        fields += ["deterministic", "true"]
    if facts["planned_steps"] is not None:
        fields += ["plannedSteps", PLAIN.encode(facts["planned_steps"])]
    if facts["wire"] is not None:
        fields += ["wire", PLAIN.encode(facts["wire"])]
    return fields
