"""Reads what documentation pages promise: their code blocks, code spans, links and headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    language: str
    text: str


class Page:
    """One Markdown file."""

    def __init__(self, path: Path):
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        self.blocks = [Block(language, text) for language, text in _FENCE.findall(self.text)]
        self.prose = _FENCE.sub("", self.text)
        self.spans = _SPAN.findall(self.prose)
        self.links = [link for link in _LINK.findall(self.prose) if "://" not in link]
        self.anchors = {_anchor(title) for title in _HEADING.findall(self.prose)}

    def block(self, beginning: str, language: str | None = None) -> str:
        """Return the one block that has *beginning* at the beginning of a line."""
        pattern = re.compile(rf"^{re.escape(beginning)}", re.MULTILINE)
        (found,) = (
            block.text
            for block in self.blocks
            if pattern.search(block.text) and language in {None, block.language}
        )
        return found


def _anchor(title: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    text = re.sub(r"[`*]", "", title.strip().lower())
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
