"""The API reference: up to date, whole, and readable where it stands."""

import inspect
import re

from docs.api_reference import ANSWERS, PAGE, Reference
from tests.helpers.markdown import Page

import askel
from askel import RedisWorkflowService


def test_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == Reference().text(), "run `make api`"


def test_every_exported_name_has_a_line_and_a_section():
    text = PAGE.read_text(encoding="utf-8")
    index = text.partition("\n## ")[0]
    lines = re.findall(r"^\* \[`(\w+)`\]\(#\w+\): \S.*\.$", index, re.MULTILINE)
    sections = re.findall(r"^### `(\w+)`$", text, re.MULTILINE)
    assert sorted(lines) == sorted(sections) == sorted([*askel.__all__, *ANSWERS])


def test_every_public_method_of_the_service_is_there():
    methods = {
        name
        for name, member in inspect.getmembers(RedisWorkflowService, inspect.isfunction)
        if not name.startswith("_")
    }
    shown = re.findall(
        r"^#### `RedisWorkflowService\.(\w+)`$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(shown) == sorted(methods)
    assert len(methods) >= 40


def test_markup_of_docstrings_is_not_left_over():
    page = Page(PAGE)
    assert "``" not in page.prose
    assert not re.search(r"^(Args|Raises|Returns|Attributes):$", page.prose, re.MULTILINE)
