"""The page on payloads, done: its examples run in order, its table is true of the library."""

import re

from tests.helpers.markdown import Page
from tests.helpers.workers import ROOT

import askel
from askel.state.codec import MAX_DEPTH, MAX_PAYLOAD

PAGE = Page(ROOT / "docs" / "payloads.md")


def test_the_examples_run():
    blocks = [block.text for block in PAGE.blocks if block.language == "python"]
    assert len(blocks) >= 6
    names = {"__name__": "__main__"}
    for number, text in enumerate(blocks):
        exec(compile(text, f"payloads.md, example {number}", "exec"), names)
    assert names["service"].codec.decode(names["client"].codec.encode("x")) == "x"


def test_the_limits_are_those_of_the_library():
    prose = " ".join(PAGE.prose.split())
    assert f"deeper than {MAX_DEPTH} levels" in prose
    assert MAX_PAYLOAD == 2**20
    assert "longer than 1 MiB" in prose


def test_the_names_of_the_library_exist():
    names = set(re.findall(r"`([A-Z]\w*(?:Error|Transform))`", PAGE.text)) | {"Codec", "Zstd"}
    assert len(names) >= 6
    assert {name for name in names if not hasattr(askel, name)} == set()
