"""A line of a worker's log as people read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: What every line has, or what is too long to read.
_LEFT_OUT = frozenset({"event", "level", "at", "timestamp", "logger", "exception", "stack"})
_LONGEST = 200


def in_words(line: Mapping[str, Any]) -> str:
    """Return the event of *line* and its facts, in one line of text."""
    facts = [f"{name} {_text(value)}" for name, value in line.items() if name not in _LEFT_OUT]
    raised = str(line.get("exception") or "").strip().splitlines()
    if raised:
        facts.append(_text(raised[-1]))
    event = _text(line.get("event", "?"))
    return f"{event}: {', '.join(facts)}" if facts else event


def _text(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
