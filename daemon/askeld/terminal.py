"""Text of anybody's making, made harmless to a terminal and to whoever reads lines."""

from __future__ import annotations


def harmless(text: str) -> str:
    """Return *text* with all that does not print (controls, direction marks) as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def harmless_lines(text: str) -> str:
    """Return *text* as `harmless` does, but for the ends of its lines."""
    return "\n".join(map(harmless, text.split("\n")))


def harmless_json(text: str) -> str:
    """Return JSON *text* of one line with all that does not print escaped as JSON does it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _json_escape(c) for c in text)


def one_line(text: str) -> str:
    """Return *text* as one line that does nothing to a terminal."""
    return harmless(" ".join(text.split()))


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
