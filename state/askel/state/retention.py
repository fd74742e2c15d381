"""Retention: ended runs are deleted when their workflow's policy gives them up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TypeVar

import msgspec

from askel.durations import Duration, duration_ms
from askel.errors import InvalidNameError, InvalidOptionError
from askel.names import check_name, check_run_id
from askel.sizes import Size, size_bytes
from askel.state.keys import Keys
from askel.state.protocol.caller import ProtocolCaller
from askel.state.store.scripts import Scripts
from askel.state.writes.deletion import delete_call

T = TypeVar("T")

MAX_EXPIRED = 10_000
#: Under what name the default policy is kept.
_DEFAULT = "*"
_AT_ONCE = 50
#: Keys that one call measures, and calls made for one workflow each time.
_MEASURED_KEYS = 2_000
# Runs that cannot be deleted now are passed over, up to so many in one call.
_MOST_SKIPPED = 1_000
_MEASURING_CALLS = 5


class RetentionPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of the ended runs of a workflow; a run goes when any bound gives it up.

    ``ttl`` counts from the run's end. ``max_runs`` and ``max_bytes`` keep the last ended.
    """

    ttl: timedelta | None = None
    max_runs: int | None = None
    max_bytes: int | None = None


class StoredPolicy(msgspec.Struct, omit_defaults=True, rename="camel"):
    """A policy as it lies in Redis."""

    ttl_ms: int | None = None
    max_runs: int | None = None
    max_bytes: int | None = None


class Retention(ProtocolCaller):
    """Applies the policies. Any number of processes may do so at once.

    Attributes:
        damaged: Names of policies that could not be read when they were last applied.
    """

    damaged: Sequence[str] = ()
    _turn = 0

    async def policies(self) -> tuple[dict[str, StoredPolicy], list[str]]:
        """Return the policies by name, and the names of those that cannot be read."""
        flat = await self._scripts.fetch(
            "HGETALL", self.keys.retention, patience_s=self._patience_s
        )
        found: dict[str, StoredPolicy] = {}
        damaged = []
        for i in range(0, len(flat), 2):
            name = flat[i].decode(errors="backslashreplace")
            try:
                found[name] = msgspec.json.decode(flat[i + 1], type=StoredPolicy)
            except msgspec.MsgspecError:
                damaged.append(name)
        return found, damaged

    async def apply(self, limit: int = 1_000) -> int:
        """Delete up to *limit* runs that the policies give up; return how many it deleted.

        A workflow whose policy cannot be read keeps its runs.
        """
        policies, self.damaged = await self.policies()
        default = policies.pop(_DEFAULT, None)
        names = list(policies)
        if default is not None:
            every = await self._scripts.fetch(
                "ZRANGE", self.keys.workflows, 0, -1, patience_s=self._patience_s
            )
            others = {name.decode(errors="backslashreplace") for name in every}
            names += sorted(others - set(policies) - set(self.damaged))
        # Each time another workflow comes first, so that none takes the whole limit for ever.
        self._turn += 1
        start = self._turn % max(len(names), 1)
        removed = 0
        for part in _parts(names[start:] + names[:start], _AT_ONCE):
            chosen = [(name, policy) for name in part if (policy := policies.get(name) or default)]
            found = await asyncio.gather(
                *(self._expired(name, policy, limit) for name, policy in chosen)
            )
            for (name, policy), run_ids in zip(chosen, found, strict=True):
                removed += await self._expire(name, policy, run_ids, limit - removed)
            if removed >= limit:
                break
        return removed

    async def _expire(
        self, name: str, policy: StoredPolicy, run_ids: Sequence[bytes], limit: int
    ) -> int:
        """Delete up to *limit* of the runs that are to go; locked ones are passed over."""
        removed = skipped = 0
        while run_ids and limit > removed and skipped < _MOST_SKIPPED:
            done, blocked = await self._delete(name, run_ids[: limit - removed])
            removed, skipped = removed + done, skipped + blocked
            if not blocked:
                break
            run_ids = await self._expired(name, policy, limit - removed, skip=skipped)
        return removed

    async def _expired(
        self, name: str, policy: StoredPolicy, limit: int, *, skip: int = 0
    ) -> list[bytes]:
        """Return the runs of the workflow that are to go, the longest ended first."""
        if policy.max_bytes is not None:
            await self._measure(name)
        bounds = (policy.ttl_ms, policy.max_runs, policy.max_bytes)
        answer = await self._ask(
            "expired",
            [self.keys.runs],
            [
                self._offset,
                name,
                *("" if bound is None else bound for bound in bounds),
                skip,
                limit,
            ],
        )
        found: list[bytes] = answer[1]
        return found

    async def _measure(self, name: str) -> None:
        for _ in range(_MEASURING_CALLS):
            answer = await self._ask(
                "measure_runs",
                [self.keys.runs, *self.keys.stems()],
                [name, _MEASURED_KEYS],
            )
            if answer[2] <= 0:
                return

    async def _delete(self, name: str, run_ids: Sequence[bytes]) -> tuple[int, int]:
        """Delete ended runs; return how many, and how many could not be deleted.

        Those that turn out to be no ended runs leave the index of them.
        """
        removed, blocked, stale = 0, 0, []
        for part in _parts(run_ids, _AT_ONCE):
            answers = await asyncio.gather(*map(self._delete_run, part))
            removed += answers.count("OK")
            blocked += answers.count("BUSY")
            known = {"OK", "BUSY"}
            stale += [one for one, word in zip(part, answers, strict=True) if word not in known]
        if stale:
            keys = [self.keys.runs_ended(name), self.keys.runs, self.keys.run("")]
            answer = await self._ask("prune_index", keys, ["0", "ended", name, *stale])
            blocked += len(stale) - answer[1]  # a damaged run stays, and is named by reindex
        return removed, blocked

    async def _delete_run(self, run_id: bytes) -> str:
        try:
            text = check_run_id(run_id.decode())
        except (ValueError, InvalidNameError):
            return "UNKNOWN"
        call = delete_call(self.keys, text, offset=self._offset)
        word: str = (await self._ask(*call))[0].decode()
        return word


class RunRetention:
    """The methods of the state service that set and apply retention policies."""

    keys: Keys
    scripts: Scripts
    clock_offset_ms: int
    resend_s: float
    _retention: Retention | None = None

    async def set_retention(
        self,
        workflow_name: str | None,
        *,
        ttl: Duration | None = None,
        max_runs: int | None = None,
        max_bytes: Size | None = None,
    ) -> None:
        """Set what is kept of the ended runs of a workflow, in place of what was set before.

        Policies lie in Redis and are applied by ``apply_retention``, which every daemon calls now
        and then. Running, suspended and stalled runs never expire. Without any policy, all runs
        stay.

        Args:
            workflow_name: The workflow; None for each of those that have no policy of their own.
            ttl: Runs that ended longer ago than this go.
            max_runs: Of those that ended first, as many go as there are more than this.
            max_bytes: Those that ended first go until all take no more than this, as Redis counts
                (``MEMORY USAGE`` of all keys of a run, once after its end).

        Raises:
            InvalidOptionError: No bound is given, or one makes no sense.
        """
        bounds: dict[str, int] = {}
        if ttl is not None:
            bounds["ttlMs"] = duration_ms(ttl)
        if max_runs is not None:
            bounds["maxRuns"] = _count(max_runs)
        if max_bytes is not None:
            bounds["maxBytes"] = size_bytes(max_bytes)
        if not bounds:
            msg = "a retention policy needs a ttl, max_runs or max_bytes; clear_retention ends one"
            raise InvalidOptionError(msg)
        await self._set_policy(_field(workflow_name), msgspec.json.encode(bounds))

    async def clear_retention(self, workflow_name: str | None) -> bool:
        """Forget the policy of a workflow, or the default one; return whether there was one."""
        return await self._set_policy(_field(workflow_name), b"")

    async def get_retention(self) -> dict[str | None, RetentionPolicy]:
        """Return all policies by workflow; None stands for the default one.

        Raises:
            InvalidOptionError: Something else than a policy lies in Redis; it is not applied.
        """
        found, damaged = await self._retainer().policies()
        if damaged:
            msg = f"the retention policy of {damaged[0]!r} in Redis is damaged: set it anew"
            raise InvalidOptionError(msg)
        return {
            None if name == _DEFAULT else name: RetentionPolicy(
                None if policy.ttl_ms is None else timedelta(milliseconds=policy.ttl_ms),
                policy.max_runs,
                policy.max_bytes,
            )
            for name, policy in sorted(found.items())
        }

    async def apply_retention(self, *, limit: int = 1_000) -> int:
        """Delete ended runs that the policies give up; return how many.

        Each goes as ``delete_run`` has it, the longest ended first, up to *limit* in one call. By
        the server's clock. Any number of processes may do this at once. A run whose lock somebody
        holds is left for the next time; so is what a byte budget has not measured yet (some
        thousand keys of a workflow are measured in one call, each run once). Steps that only
        services of other makes know of are left to ``reindex``.

        Raises:
            InvalidOptionError: *limit* is not between 1 and 10000.
        """
        if not isinstance(limit, int) or not 1 <= limit <= MAX_EXPIRED:
            msg = f"limit={limit!r:.80}: give 1 to {MAX_EXPIRED}"
            raise InvalidOptionError(msg)
        return await self._retainer().apply(limit)

    def _retainer(self) -> Retention:
        if self._retention is None:
            self._retention = Retention(
                self.scripts,
                self.keys,
                consumer="",
                clock_offset_ms=self.clock_offset_ms,
                patience_s=self.resend_s,
            )
        return self._retention

    async def _set_policy(self, name: str, policy: bytes) -> bool:
        answer, resent = await self.scripts.insist(
            "set_retention", [self.keys.retention], [name, policy], patience_s=self.resend_s
        )
        return answer[0] == b"OK" or resent


def _field(workflow_name: str | None) -> str:
    if workflow_name == _DEFAULT:
        msg = "a workflow called '*' can have no policy of its own; None is the default policy"
        raise InvalidOptionError(msg)
    return _DEFAULT if workflow_name is None else check_name(workflow_name, "workflow name")


def _count(value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
        msg = f"max_runs={value!r:.80}: give 0 or more"
        raise InvalidOptionError(msg)
    return value


def _parts(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    return (items[i : i + size] for i in range(0, len(items), size))
