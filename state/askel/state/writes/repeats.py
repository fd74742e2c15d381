"""A write that is repeated in other bytes: sealed by another key, its keys in another order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from askel.state.codec import Codec
from askel.state.keys import Keys
from askel.state.protocol.turns import Answer
from askel.state.writes.changes import Change, Finish, SetStatus


async def as_recorded(
    fetch: Callable[..., Awaitable[Any]],
    codec: Codec,
    keys: Keys,
    run_id: str,
    changes: Sequence[Change],
    answer: Answer,
) -> list[Change] | None:
    """Return *changes* with the refused one in the bytes that are recorded, to be sent again.

    None when it was refused for another reason, or what is recorded is another payload.
    """
    word, *rest = answer
    if word not in {b"CONFLICT", b"ILLEGAL"} or not rest[0]:
        return None
    place = int(rest[0]) - 1
    change = changes[place]
    recorded: Change | None = None
    if isinstance(change, Finish) and word == b"CONFLICT":
        stored = await fetch("HGET", keys.step(run_id, change.step_name), change.outcome)
        if _is_other_text(codec, stored, change.json):
            recorded = msgspec.structs.replace(change, json=stored)
    elif isinstance(change, SetStatus) and rest[1:] == [change.target.value.encode()]:
        output, error = await fetch("HMGET", keys.run(run_id), "output", "error")
        given = {"output": (output, change.output), "error": (error, change.error)}
        same = {
            name: stored
            for name, (stored, sent) in given.items()
            if _is_other_text(codec, stored, sent)
        }
        if same:
            recorded = msgspec.structs.replace(change, **same)
    if recorded is None:
        return None
    return [*changes[:place], recorded, *changes[place + 1 :]]


def _is_other_text(codec: Codec, stored: bytes | None, sent: bytes) -> bool:
    """Tell whether *stored* is the payload *sent* in other bytes."""
    return bool(stored and sent and stored != sent and codec.is_same(stored, sent))
