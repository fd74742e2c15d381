"""What verbs print: tables for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from askeld.terminal import harmless, harmless_json, one_line

__all__ = ["clock_time", "date_time", "one_line", "print_json", "print_table", "shown"]

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
_GAP = 2
#: A last column narrower than this is not worth showing.
_LEAST_ROOM = 12


def print_json(value: Any) -> None:
    """Print *value* as one line of JSON."""
    sys.stdout.write(harmless_json(msgspec.json.encode(value).decode()) + "\n")


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "", *, crop: bool = False
) -> None:
    """Print rows under their columns; coloured where the output is a terminal.

    A terminal that is too narrow gets the last column folded, or where *crop*, cut or left out; a
    pipe gets every line whole.
    """
    from rich.cells import cell_len  # noqa: PLC0415 - only verbs that print tables need it
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    lines = [[harmless(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(columns, *lines, strict=True)]
    others = sum(widths[:-1]) + _GAP * (len(widths) - 1)
    console = Console()
    if not console.is_terminal:
        console.width = max(others + widths[-1], cell_len(title))
    room = console.width - others
    if crop and widths[-1] > room >= _LEAST_ROOM:
        for line in lines:
            line[-1] = _cropped(line[-1], room)
    shown_columns = columns[:-1] if crop and widths[-1] > room < _LEAST_ROOM else columns
    table = Table(
        title=harmless(title) or None,
        title_justify="left",
        box=None,
        pad_edge=False,
        show_header=any(columns),
    )
    for number, column in enumerate(shown_columns, 1):
        whole = number < len(columns) and (crop or room >= _LEAST_ROOM)
        table.add_column(column, overflow="fold", no_wrap=whole)
    for line in lines:
        cells = line[: len(shown_columns)]
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in cells))
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as capture:
        console.print(table)
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def _cropped(text: str, room: int) -> str:
    from rich.text import Text  # noqa: PLC0415

    cut = Text(text)
    cut.truncate(room, overflow="ellipsis")
    return cut.plain


def shown(value: Any) -> str:
    """Return a payload for people: one line of JSON, cut where it is long."""
    if value is None:
        return ""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def clock_time(moment: datetime | int | None, beside: int | None = None) -> str:
    """Return the time of day with milliseconds, UTC; the date, too, unless *beside* is that day."""
    if moment is None:
        return ""
    if isinstance(moment, int):
        moment = datetime.fromtimestamp(moment / 1_000, UTC)
    if beside is not None and datetime.fromtimestamp(beside / 1_000, UTC).date() != moment.date():
        return f"{moment:%Y-%m-%d} {clock_time(moment)}"
    return moment.strftime("%H:%M:%S.") + f"{moment.microsecond // 1_000:03d}"


def date_time(moment: datetime) -> str:
    """Return date and time of day, UTC."""
    return moment.strftime("%Y-%m-%d %H:%M:%S")
