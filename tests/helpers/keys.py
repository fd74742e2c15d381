"""The documented keys, and what a test left behind besides them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

KEY_PATTERNS = {
    "run": r"run:[^:]+",
    "step": r"step:[^:]+:.+",
    "history": r"history:[^:]+",
    "lock": r"lock:[^:]+",
    "step-lock": r"step-lock:[^:]+:.+",
    "step-history": r"step-history:[^:]+:.+",
    "run-state": r"run-state:[^:]+",
    "version": r"version:.+",
    "steps": r"steps:[^:]+",
    "runs": r"runs.*",
    "retention": r"retention",
    "ctl": r"ctl:[^:]+",
    "nudge": r"nudge:.+",
    "schedules": r"schedules",
    "meta": r"meta",
    "commands": r"commands(:.+)?",
    "sweep": r"sweep(:.+)?",
    "timers": r"timers",
    "watch": r"watch",
    "dead": r"dead",
    "events": r"events",
    "reply": r"reply:.+",
}
"""What may follow the prefix and its colon: the table of design.md, section 2."""

_DOCUMENTED = re.compile("|".join(KEY_PATTERNS.values()), re.DOTALL)
_LOCKS = re.compile(f"{KEY_PATTERNS['lock']}|{KEY_PATTERNS['step-lock']}", re.DOTALL)
_BATCH = 1000


def sync_client(url: str) -> redis.Redis:
    """Return a blocking client for inspections, without retries and without decoding."""
    return redis.Redis.from_url(url, protocol=2, retry=Retry(NoBackoff(), 0))


def find_leaks(client: redis.Redis, prefix: str, allowed: Iterable[str] = ()) -> list[str]:
    """Return one sentence per key in the server that should not be there, sorted.

    Args:
        client: Of the server to look at, all of it.
        prefix: The test's own key prefix.
        allowed: Regular expressions of whole keys to be left out of consideration.
    """
    leaks = []
    for key in sorted(client.scan_iter(count=_BATCH)):
        text = key.decode(errors="backslashreplace")
        name = text.removeprefix(f"{prefix}:")
        if any(re.fullmatch(pattern, text, re.DOTALL) for pattern in allowed):
            continue
        if name == text:
            leaks.append(f"{text}: outside the prefix {prefix}")
        elif not _DOCUMENTED.fullmatch(name):
            leaks.append(f"{text}: matches no documented key")
        elif _LOCKS.fullmatch(name) and client.pttl(key) == -1:
            leaks.append(f"{text}: a lock without a time to live")
    return leaks


def delete_all(client: redis.Redis) -> None:
    """Delete every key of the server: on a shared one, all of them are the last test's."""
    batch: list[bytes] = []
    for key in client.scan_iter(count=_BATCH):
        batch.append(key)
        if len(batch) == _BATCH:
            client.unlink(*batch)
            batch.clear()
    if batch:
        client.unlink(*batch)


def describe(leaks: Sequence[str], shown: int = 20) -> str:
    """Put leaks into one message of bounded length."""
    more = [f"… and {len(leaks) - shown} more"] if len(leaks) > shown else []
    return "\n".join([f"the test left {len(leaks)} wrong key(s):", *leaks[:shown], *more])
