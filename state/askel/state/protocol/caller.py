"""What the callers of the run protocol share: who they are, and how answers are read.

Every call may be sent again until it is answered, and is: the daemon insists through lost replies
and reconnects until its task is cancelled. An answer that a script's header does not list is a
mistake of ours and raises AssertionError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from askel.state.keys import Keys
from askel.state.protocol.turns import Answer, Refusal
from askel.state.store.scripts import Scripts
from askel.state.store.server import GROUP

__all__ = ["GROUP", "ProtocolCaller", "Word", "done", "owner_to_nudge", "refusal"]

Word = str | bytes | int


class ProtocolCaller:
    """One consumer of the group, calling scripts until they answer."""

    def __init__(
        self,
        scripts: Scripts,
        keys: Keys,
        *,
        consumer: str,
        lease_ms: int = 10_000,
        robbed_limit: int = 5,
        clock_offset_ms: int = 0,
        patience_s: float | None = None,
        reach: Callable[[str], None] | None = None,
    ) -> None:
        """Act as *consumer* of the group on the streams of *keys*.

        Args:
            scripts: Where the scripts run.
            keys: The keys of the deployment.
            consumer: Unique per process start, never used again.
            lease_ms: How long an activation holds the run lock without giving it back.
            robbed_limit: How often a run may be taken from owners that made no progress.
            clock_offset_ms: Moves the server's clock as the scripts see it; for tests.
            patience_s: How long a call insists on an answer after a failure; None: for ever.
            reach: Told before and after each script, by name; tests end the process there.
        """
        self._scripts = scripts
        self.keys = keys
        self.consumer = consumer
        self._lease_ms = lease_ms
        self._robbed_limit = robbed_limit
        self._offset = clock_offset_ms
        self._patience_s = patience_s
        self._reach = reach

    async def _ask(self, name: str, keys: Sequence[str], args: Sequence[Word]) -> Answer:
        if self._reach is not None:
            self._reach(f"before_{name}")
        answer, _ = await self._scripts.insist(name, keys, args, patience_s=self._patience_s)
        if self._reach is not None:
            self._reach(f"after_{name}")
        return answer


def owner_to_nudge(answer: Answer, words: set[str]) -> str | Refusal:
    """Return the owner that OK names (empty: none), or why the script refused."""
    return answer[1].decode() if answer[0] == b"OK" else refusal(answer, words)


def done(answer: Answer, words: set[str]) -> Refusal | None:
    """Return None for OK, or why the script refused."""
    return None if answer[0] == b"OK" else refusal(answer, words)


def refusal(answer: Answer, words: set[str]) -> Refusal:
    """Return the refusal in *answer*: BUSY, or one of *words*."""
    word = answer[0].decode()
    if word == "BUSY":
        return Refusal(word, pttl=answer[1])
    assert word in words, f"a script answered {word}, which its header does not list"
    return Refusal(word, detail=answer[1].decode() if len(answer) > 1 else "")
