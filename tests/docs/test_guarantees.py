"""The page of guarantees: it has a row for every id, and the tests that it names exist."""

import ast
import re
from functools import cache

import pytest
from tests.helpers.markdown import Page
from tests.helpers.workers import ROOT
from tests.model.configurations import BROKEN
from tests.simulation.test_simulation import MUTATIONS

from askeld.torture.invariants import Invariant

PAGE = Page(ROOT / "docs" / "guarantees.md")
IDS = [
    "L1",
    "L2",
    "L3",
    "L4",
    "L5",
    "T1",
    "T2",
    "T3",
    "T4",
    "C1",
    "C2",
    "A1",
    "P-dup",
    "M1",
    "M2",
    "M2b",
    "M3",
    "M4",
    "M5",
    "M6",
    "K1",
    "K2",
    "K3",
    "K4",
    "K5",
    "V1",
    "I5",
    "G1",
    "D1",
    "D2",
    "D3",
    "P1",
    "P2",
    "P3",
    "I1",
    "I2",
    "I3",
    "I4",
    "I6",
    "W1",
    "E1",
    "E2",
    "E3",
    "E4",
    "E5",
    "E6",
    "E7",
    "E8",
    "E9",
    "E10",
    "E11",
    "E12",
    "E13",
    "E14",
    "E15",
    "E16",
    "E17",
    "E18",
    "E19",
    "E20",
]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.text.splitlines()
    if line.startswith("| ") and not line.startswith(("| id ", "| what "))
]
NAMED = sorted(set(re.findall(r"`([\w/]+\.py::\w+)`", PAGE.text)))


@cache
def names_in(path):
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name for node in tree.body if isinstance(node, kinds)}


def test_every_id_has_one_row():
    told = [name for row in ROWS if len(row) == 3 for name in row[0].split(", ")]
    assert sorted(told) == sorted(IDS)


@pytest.mark.parametrize("name", NAMED)
def test_named_tests_exist(name):
    path, _, test = name.partition("::")
    assert test.startswith("test_")
    assert test in names_in(path)


def test_every_row_names_a_test_or_says_that_it_is_not_held_yet():
    silent = [row for row in ROWS if not re.search(r"\.py::|^not yet: ", row[-1])]
    assert silent == []


def test_every_rule_that_is_left_out_somewhere_stands_beside_its_invariant():
    """What the model, the simulation and the judge know is named, and nothing else."""
    invariants = [row for row in ROWS if re.match(r"\*\*\d\.\*\* ", row[0])]
    assert [int(row[0][2]) for row in invariants] == [*range(1, 9)]
    rules, mutations, judged = (" ".join(row[number] for row in invariants) for number in (1, 2, 3))
    assert set(re.findall(r"`([a-z-]+)`", rules)) == set(BROKEN)
    assert set(re.findall(r'"([^"]+)"', mutations)) == set(MUTATIONS)
    known = {one.value.partition(":")[0] for one in Invariant}
    assert known - set(judged.split()) == {"S15"}  # of tenants: no invariant of runs
    assert set(judged.split()) <= known


def test_the_number_of_rules_that_are_left_out_is_right():
    assert f"any of {len(BROKEN)} rules" in PAGE.text
