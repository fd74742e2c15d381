"""What verbs print: tables for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

#: Colours of statuses on a terminal.
_STYLES = {
    "completed": "green",
    "succeeded": "green",
    "failed": "red",
    "lost": "yellow",
    "stalled": "yellow",
    "suspended": "yellow",
    "cancelled": "dim",
    "running": "cyan",
}
_LONGEST_VALUE = 72


def print_json(value: Any) -> None:
    """Print *value* as one line of JSON."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Print rows under their columns; coloured where the output is a terminal."""
    from rich.console import Console  # noqa: PLC0415 - only verbs that print tables need it
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(
        title=title or None,
        title_justify="left",
        box=None,
        pad_edge=False,
        show_header=any(columns),
    )
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    # Not a terminal: as wide as needed, so that a pipe gets every line whole.
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)


def shown(value: Any) -> str:
    """Return a payload for people: one line of JSON, cut where it is long."""
    if value is None:
        return ""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def clock_time(moment: datetime | int | None) -> str:
    """Return the time of day with milliseconds, UTC."""
    if moment is None:
        return ""
    if isinstance(moment, int):
        moment = datetime.fromtimestamp(moment / 1_000, UTC)
    return moment.strftime("%H:%M:%S.") + f"{moment.microsecond // 1_000:03d}"


def date_time(moment: datetime) -> str:
    """Return date and time of day, UTC."""
    return moment.strftime("%Y-%m-%d %H:%M:%S")
