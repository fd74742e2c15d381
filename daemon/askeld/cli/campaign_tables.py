"""Parts of the reports of ``askel torture`` and ``askel soak``, for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

#: A label, its value, a remark.
Row = tuple[str, object, str]

_PIPE_WIDTH = 120
_MOST_LINES = 60
_ZEROS = ("lost", "duplicated", "stuck", "violations")


def wide_console() -> Console:
    """Return a console that is wide enough where there is no terminal."""
    console = Console()
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console


def print_rows(console: Console, title: str, rows: Iterable[Row]) -> None:
    """Print *rows* as a table; what must be zero is green or red."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for label, value, remark in rows:
        style = ("bold red" if value else "bold green") if label in _ZEROS else ""
        table.add_row(label, Text(str(value), style=style), remark)
    console.print()
    console.print(table)


def print_lines(console: Console, title: str, lines: Sequence[str]) -> None:
    """Print *lines* under *title*; nothing where there are none."""
    if lines:
        console.print(f"\n[bold]{title}[/]")
        for line in lines[:_MOST_LINES]:
            console.print(Text(f"  {line}"))
        if len(lines) > _MOST_LINES:
            console.print(f"  and {len(lines) - _MOST_LINES} more")
