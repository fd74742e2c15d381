"""Sharing a prefix with services of the npm package ``@pikku/redis``: finding what they wrote.

They keep no index of a run's steps and no list of its history, so both are found as they do it: by
a scan for step keys, at the cost that they pay. Nothing here runs unless ``compat`` is on.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias

import msgspec

from askel.errors import InvalidOptionError
from askel.state.keys import Keys
from askel.state.pikku.foreign import ForeignStep, merged_entries
from askel.state.reads.history import HistoryEntry
from askel.state.reads.records import fields_of, read_ms
from askel.state.store.scripts import Scripts

#: Systems that a prefix can be shared with; each has its folder of scripts in ``lua``.
COMPATIBLE = ("pikku",)
_SCANNED_AT_ONCE = 1_000

# Sends a command that only reads; asks again after a lost reply.
Fetch: TypeAlias = Callable[..., Awaitable[Any]]


class ReadsSteps(Protocol):
    """What is needed of the service."""

    keys: Keys
    scripts: Scripts
    resend_s: float

    async def _read_step_hashes(
        self, run_id: str, fields: Sequence[str] = (), names: Sequence[str] | None = None
    ) -> dict[str, dict[str, bytes]]: ...


def check_compat(compat: str | None) -> str | None:
    """Return *compat*.

    Raises:
        InvalidOptionError: Nothing of that name is known.
    """
    if compat is not None and compat not in COMPATIBLE:
        msg = f"compat={compat!r:.80} is unknown: give None or {' or '.join(map(repr, COMPATIBLE))}"
        raise InvalidOptionError(msg)
    return compat


async def step_names(fetch: Fetch, keys: Keys, run_id: str) -> list[str]:
    """Return the names of all steps of the run: those it lists, then those that others added.

    Each is named once, whatever the keyspace does during the scan.
    """
    listed = await fetch("LRANGE", keys.steps(run_id), 0, -1)
    names = dict.fromkeys(name.decode() for name in listed)
    stem = keys.step_stem(run_id)
    found = await _scanned(fetch, _escaped(stem) + "*")
    names.update(dict.fromkeys(key.removeprefix(stem) for key in sorted(found)))
    return list(names)


async def name_steps(scripts: Scripts, keys: Keys, run_id: str, patience_s: float | None) -> None:
    """Add the steps that others made to those that the run lists.

    So that what walks the list (a former generation, moved aside) leaves none behind.
    """
    fetch = partial(scripts.fetch, patience_s=patience_s)
    names = await step_names(fetch, keys, run_id)
    if names:
        places = [keys.run(run_id), keys.steps(run_id), keys.step_stem(run_id)]
        await scripts.insist("index_steps", places, ["0", *names], patience_s=patience_s)


async def stray_keys(fetch: Fetch, keys: Keys, run_id: str) -> list[str]:
    """Return the keys of the run's steps and of their histories and locks, whoever made them."""
    pattern = f"{_escaped(keys.prefix)}:step*:{_escaped(run_id)}:*"
    stems = (keys.step_stem(run_id), keys.step_history(f"{run_id}:"), keys.step_lock(run_id, ""))
    return sorted(key for key in await _scanned(fetch, pattern) if key.startswith(stems))


async def _scanned(fetch: Fetch, pattern: str) -> set[str]:
    found: set[str] = set()
    cursor = b"0"
    while True:
        cursor, keys = await fetch("SCAN", cursor, "MATCH", pattern, "COUNT", _SCANNED_AT_ONCE)
        for key in keys:
            # What is no text, nobody could have given to a step as its name.
            with contextlib.suppress(UnicodeDecodeError):
                found.add(key.decode())
        if cursor == b"0":
            return found


def _escaped(text: str) -> str:
    """Return *text* as a pattern that matches it alone."""
    return re.sub(r"([*?\[\]\\^])", r"\\\1", text)


def real_steps(steps: Mapping[str, dict[str, bytes]]) -> dict[str, dict[str, bytes]]:
    """Return the hashes that are steps: Node's writes to one that there is not leave others."""
    return {name: fields for name, fields in steps.items() if fields.get("stepId")}


def by_creation(steps: Mapping[str, dict[str, bytes]]) -> dict[str, dict[str, bytes]]:
    """Return the hashes of steps in the order in which the steps were created."""
    return dict(sorted(steps.items(), key=lambda item: read_ms(item[1].get("createdAt")) or 0))


async def with_foreign_entries(
    service: ReadsSteps, run_id: str, run: Mapping[str, bytes], entries: Sequence[HistoryEntry]
) -> list[HistoryEntry]:
    """Return the history with what Node services did, each at its place in time.

    Args:
        service: Where to read.
        run_id: The run.
        run: Its hash.
        entries: Its list.
    """
    send, k = partial(service.scripts.fetch, patience_s=service.resend_s), service.keys
    names, state = await asyncio.gather(
        step_names(send, k, run_id), send("HGETALL", k.run_state(run_id))
    )
    hashes = by_creation(await service._read_step_hashes(run_id, names=names))  # noqa: SLF001 - a mixin of the same class
    members = await asyncio.gather(
        *(
            send("ZRANGE", k.step_history(fields["stepId"].decode()), 0, -1)
            for fields in hashes.values()
        )
    )
    steps = [
        ForeignStep(name, fields, found)
        for (name, fields), found in zip(hashes.items(), members, strict=True)
    ]
    return merged_entries(run, entries, steps, variables_of(run, fields_of(state)))


def variables_of(run: Mapping[str, bytes], state: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the run's variables as JSON text.

    Services before 0.12.13 kept them all in one field of the run's hash; a field of its own wins.
    """
    try:
        blob: Any = msgspec.json.decode(run.get("state") or b"{}", type=dict[str, msgspec.Raw])
    except msgspec.MsgspecError:
        blob = {}
    return {name: bytes(value) for name, value in blob.items()} | dict(state)
