"""The example of docs/interop.md runs as it stands."""

import os
import subprocess
import sys

import pytest
from tests.helpers.markdown import Page
from tests.helpers.node import node_driver
from tests.helpers.workers import ROOT

PAGE = Page(ROOT / "docs" / "interop.md")

pytestmark = pytest.mark.allow_keys(r".*:step-history:.+")


def test_example_runs(node, redis_url, prefix, tmp_path):
    python, script = tmp_path / "shop.py", tmp_path / "shop.mjs"
    python.write_text(PAGE.block("# shop.py", "python").replace('"shop"', f'"{prefix}"'))
    script.write_text(PAGE.block("// shop.mjs", "js").replace("'shop'", f"'{prefix}'"))
    source = node_driver(script)
    try:
        outputs = [
            subprocess.run(
                command,
                env=os.environ | {"REDIS_URL": redis_url},
                capture_output=True,
                text=True,
                check=True,
                timeout=30,
            ).stdout
            for command in (
                [sys.executable, python],
                ["node", source],
                [sys.executable, python],
            )
        ]
    finally:
        source.unlink()

    assert outputs[0] == ""
    assert "status: 'succeeded'" in outputs[1]
    assert outputs[2] == "charge card 1 succeeded {'receipt': 'r-1'}\n"
    assert outputs[2].strip() in PAGE.spans
