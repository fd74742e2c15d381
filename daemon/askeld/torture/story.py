"""What an append-only file tells of one run: every transition that touched it, in order."""

from __future__ import annotations

from pathlib import Path

from askeld.torture.aof import Aof, Transition, Words

_LONGEST_WORD = 160
_MOST_LINES = 400


def story_of(aof: Path, prefix: str, run_id: str) -> list[str]:
    """Return one line for each command of each transition that names *run_id* in a key or a field.

    Raises:
        AofError: The file cannot be read.
    """
    wanted, start = run_id.encode(), prefix.encode() + b":"
    lines: list[str] = []
    for number, transition in enumerate(Aof(aof).transitions(), 1):
        if not _is_about(transition, wanted):
            continue
        if len(lines) >= _MOST_LINES:
            lines.append(f"… and more, from transition {number} on")
            break
        lines.append(f"transition {number}")
        lines += [f"    {_shown(words, start)}" for words in transition]
    return lines


def _is_about(transition: Transition, run_id: bytes) -> bool:
    for words in transition:
        if any(run_id in word.split(b":") for word in words[1:2]) or run_id in words[3:]:
            return True
    return False


def _shown(words: Words, prefix: bytes) -> str:
    shown = []
    for word in words:
        text = word.removeprefix(prefix).decode(errors="backslashreplace")
        shown.append(text if len(text) <= _LONGEST_WORD else f"{text[:_LONGEST_WORD]}…")
    return " ".join(ascii(text)[1:-1] if not text.isprintable() else text for text in shown)
