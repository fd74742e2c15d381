"""What tests that need Node do where it is missing, and how its packages are installed."""

import json
import stat
import threading

import pytest
from tests.helpers import node
from tests.helpers.node import PACKAGES, NodeMissingError, is_required, node_modules


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A PATH on which nothing is but what the test puts there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(folder, name, script):
    made = folder / name
    made.write_text(f"#!/bin/sh\n{script}\n")
    made.chmod(made.stat().st_mode | stat.S_IXUSR)


INSTALLS = "/bin/echo x >> $0.calls; /bin/mkdir node_modules"


def test_versions_are_exact():
    for version in json.loads(PACKAGES.read_text())["dependencies"].values():
        assert all(part.isdigit() for part in version.split(".")), version


@pytest.mark.parametrize(
    ("environment", "required"),
    [
        ({}, False),
        ({"CI": "1"}, True),
        ({"CI": "true"}, True),
        ({"CI": ""}, False),
        ({"CI": "false"}, False),
        ({"ASKEL_REQUIRE_NODE": "1"}, True),
        ({"ASKEL_REQUIRE_NODE": "0", "CI": "1"}, False),
    ],
    ids=str,
)
def test_when_a_missing_node_fails_the_tests(environment, required):
    assert is_required(environment) is required


def test_what_is_missing_is_named(path, tmp_path):
    with pytest.raises(NodeMissingError, match="no node"):
        node_modules(tmp_path)
    program(path, "node", "echo v18.1.0")
    with pytest.raises(NodeMissingError, match="no npm"):
        node_modules(tmp_path)
    program(path, "npm", INSTALLS)
    with pytest.raises(NodeMissingError, match="18 is too old"):
        node_modules(tmp_path)


def test_packages_are_installed_once_by_whoever_comes_first(path, tmp_path):
    program(path, "node", "echo v20.0.0")
    program(path, "npm", INSTALLS)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(node_modules(tmp_path / "cache")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(found)) == 1
    assert sorted(one.name for one in found[0].iterdir()) == ["node_modules", "package.json"]
    assert (path / "npm.calls").read_text() == "x\n"


def test_failure_of_npm_is_told_and_leaves_nothing(path, tmp_path, monkeypatch):
    monkeypatch.setattr(node, "_NPM_TRIES", 1)
    program(path, "node", "echo v20.0.0")
    program(path, "npm", "echo 'no such host' >&2; exit 1")
    with pytest.raises(NodeMissingError, match="no such host"):
        node_modules(tmp_path / "cache")

    assert [one.suffix for one in (tmp_path / "cache").iterdir()] == [".lock"]
