"""What may be called what. Everything else is refused before Redis is touched."""

from __future__ import annotations

import re

from askel.errors import InvalidNameError

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PREFIX = re.compile(r"[A-Za-z0-9._:-]{1,64}|\{[A-Za-z0-9._:-]{1,64}\}")
_QUEUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# Names that the engine makes itself: a repeated reach, an instance of a fan-out, a compensation.
_ENGINE_MADE = re.compile(r"__.*|.*#\d+|.*\[\d+\]|.*:onError", re.DOTALL)

# What stands before people's own text in a key.
_KEY_WORDS = frozenset(
    {"commands", "ctl", "history", "lock", "nudge", "reply", "run", "run-state", "runs"}
    | {"step", "step-history", "step-lock", "steps", "version"}
)

MAX_NAME_BYTES = 512


def check_run_id(run_id: str) -> str:
    """Return *run_id*, or raise InvalidNameError."""
    if not isinstance(run_id, str) or _RUN_ID.fullmatch(run_id) is None:
        msg = (
            f"run id {_shown(run_id)} is not allowed: use 1 to 128 letters, digits, dots, "
            "underscores or hyphens, beginning with a letter or digit"
        )
        raise InvalidNameError(msg)
    return run_id


def check_name(name: str, what: str = "step name") -> str:
    """Return *name* if it is people's text without control characters, else InvalidNameError."""
    if not isinstance(name, str) or not name or _CONTROL.search(name):
        msg = f"{what} {_shown(name)} is not allowed: use text without control characters"
        raise InvalidNameError(msg)
    if len(name) * 4 > MAX_NAME_BYTES and len(name.encode()) > MAX_NAME_BYTES:
        msg = f"{what} {_shown(name)} is longer than {MAX_NAME_BYTES} bytes"
        raise InvalidNameError(msg)
    return name


def check_own_step_name(name: str) -> str:
    """Return *name* if workflow code may use it; names the engine makes are refused."""
    check_name(name)
    if _ENGINE_MADE.fullmatch(name):
        msg = (
            f"step name {_shown(name)} is reserved: names beginning with '__' or ending in '#n', "
            "'[n]' or ':onError' are made by askel"
        )
        raise InvalidNameError(msg)
    return name


def check_queue(queue: str) -> str:
    """Return *queue*, or raise InvalidNameError."""
    if not isinstance(queue, str) or _QUEUE.fullmatch(queue) is None:
        msg = f"queue {_shown(queue)} is not allowed: use 1 to 64 letters, digits, '.', '_' or '-'"
        raise InvalidNameError(msg)
    return queue


def check_prefix(prefix: str) -> str:
    """Return the key *prefix*, or raise InvalidNameError."""
    if not isinstance(prefix, str) or _PREFIX.fullmatch(prefix) is None:
        msg = (
            f"key prefix {_shown(prefix)} is not allowed: use 1 to 64 letters, digits, '.', '_', "
            "':' or '-', optionally wrapped in one pair of braces"
        )
        raise InvalidNameError(msg)
    if _KEY_WORDS & set(prefix.strip("{}").split(":")[1:]):
        msg = (
            f"key prefix {_shown(prefix)} is not allowed: after a ':' the words "
            f"{', '.join(sorted(_KEY_WORDS))} would make it meet the keys of another prefix"
        )
        raise InvalidNameError(msg)
    return prefix


def _shown(name: object) -> str:
    """Return *name* for a message: printable and short, whatever it is."""
    text = ascii(name)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004
