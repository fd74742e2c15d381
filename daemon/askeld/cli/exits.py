"""Exit codes, and what an error means for them."""

from __future__ import annotations

from enum import IntEnum

from askel import (
    AskelError,
    ConflictError,
    InvalidError,
    LockError,
    NotConfirmedError,
    NotFoundError,
    StoreUnsafeError,
    StoreWipedError,
    WaitTimeoutError,
)


class Exit(IntEnum):
    """What the shell is told."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    TIMEOUT = 5
    UNHEALTHY = 6
    INTERRUPTED = 130


_MEANING: tuple[tuple[type[AskelError], Exit], ...] = (
    (InvalidError, Exit.USAGE),
    (NotFoundError, Exit.NOT_FOUND),
    (ConflictError, Exit.REFUSED),
    (LockError, Exit.REFUSED),
    (StoreUnsafeError, Exit.REFUSED),
    (StoreWipedError, Exit.REFUSED),  # a worker that was started again would go on, empty
    (WaitTimeoutError, Exit.TIMEOUT),
    (NotConfirmedError, Exit.TIMEOUT),
)


def exit_for(error: AskelError) -> Exit:
    """Return the exit code for *error*."""
    for kind, code in _MEANING:
        if isinstance(error, kind):
            return code
    return Exit.ERROR
