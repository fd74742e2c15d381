"""What is printed where: on a terminal, into a pipe, and into one that nobody reads."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

import pytest
from tests.helpers.cli import ASKEL, environment

from askeld.cli.output import one_line, print_table, shown

LONG = "x" * 300
ROW = ("order-42", "checkout", "completed", "2026-11-22 16:50:10", '{"id":"order-42"}')
COLUMNS = ("RUN", "WORKFLOW", "STATUS", "CREATED (UTC)", "INPUT")
ESCAPE = "\x1b"


def on_terminal(words, *, columns, cwd, **env):
    """Run the program on a terminal of its own; return what it printed there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [ASKEL, *words],
        env=environment(TERM="xterm-256color", **env),
        cwd=cwd,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    printed = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # Linux says EIO when the last who had it open is gone.
            break
        if not data:
            break
        printed += data
    os.close(ours)
    assert process.wait(20) == 0, printed
    return printed.decode().replace("\r\n", "\n")


def plain(text):
    return re.sub(rf"{ESCAPE}\[[0-9;?]*[A-Za-z]", "", text)


@pytest.fixture
def printed(capsys, monkeypatch):
    """Print a table into a pipe, or on a terminal of that many columns; return its lines."""

    def run(rows, columns=None, headers=COLUMNS, **options):
        if columns is not None:
            monkeypatch.setenv("FORCE_COLOR", "1")
            monkeypatch.setenv("TERM", "xterm")
            monkeypatch.setenv("COLUMNS", str(columns))
        print_table(headers, rows, **options)
        return [line.rstrip() for line in plain(capsys.readouterr().out).splitlines()]

    return run


@pytest.fixture
def history(shop):
    """A run that has ended; the words that show its history."""
    run_id = shop.new_id()
    shop.call("run", "checkout", '{"id": "o"}', "--run-id", run_id)
    return ("history", run_id)


def test_a_terminal_gets_colours_and_a_pipe_does_not(shop, history, tmp_path):
    shown_there = on_terminal(history, columns=120, cwd=tmp_path, REDIS_URL=shop.url)
    assert f"{ESCAPE}[32msucceeded" in shown_there
    assert f"{ESCAPE}[31mfailed" in shown_there
    assert ESCAPE not in shop.run(*history).out
    assert [line.rstrip() for line in plain(shown_there).splitlines()] == shop.run(
        *history
    ).out.splitlines()


def test_no_color_keeps_a_terminal_plain(shop, history, tmp_path):
    text = on_terminal(history, columns=120, cwd=tmp_path, REDIS_URL=shop.url, NO_COLOR="1")
    assert not re.search(rf"{ESCAPE}\[3\d", text)


def test_a_pipe_gets_every_line_whole_and_nothing_behind_it(printed, capsys):
    rows = [ROW, (LONG, *ROW[1:]), (*ROW[:4], LONG)]
    lines = printed(rows)
    assert len(lines) == 4
    assert LONG in lines[2]
    assert lines[3].endswith(LONG)
    print_table(COLUMNS, rows)
    assert not any(line.endswith(" ") for line in capsys.readouterr().out.splitlines())


def test_a_wide_terminal_shows_the_same_as_a_pipe(printed):
    assert printed([ROW]) == printed([ROW], columns=100)


def test_a_narrow_terminal_folds_the_last_column_alone(printed):
    lines = printed([(*ROW[:4], "one two three four")], columns=66, headers=COLUMNS)
    assert [line.rpartition("  ")[2].strip() for line in lines[1:]] == ["one two three", "four"]
    assert lines[1].startswith("order-42  checkout  completed  2026-11-22 16:50:10  one")


def test_a_list_cuts_the_last_column_and_leaves_out_what_has_no_room(printed):
    lines = printed([ROW], columns=66, crop=True)
    assert len(lines) == 2
    assert lines[1].endswith('{"id":"order-…')
    assert max(map(len, lines)) <= 66
    lines = printed([ROW], columns=60, crop=True)
    assert lines[0].split() == ["RUN", "WORKFLOW", "STATUS", "CREATED", "(UTC)"]
    assert len(lines) == 2


def test_a_terminal_too_narrow_for_anything_still_shows_everything(printed):
    lines = printed([(LONG, *ROW[1:])], columns=40)
    assert "".join(lines).count("x") == 300


def test_a_list_on_a_terminal_of_80_columns_has_one_line_a_run(shop, tmp_path):
    for _ in range(2):
        shop.call("run", "checkout", '{"id": "o"}')
    text = plain(on_terminal(("ls",), columns=80, cwd=tmp_path, REDIS_URL=shop.url))
    count = len(shop.call("ls", "--json").json()["runs"])
    assert len(text.splitlines()) == count + 1


@pytest.mark.parametrize("words", [("ls",), ("ls", "--json"), ("--help",)], ids=" ".join)
def test_a_pipe_that_nobody_reads_is_no_trouble(shop, tmp_path, words):
    shop.call("run", "checkout", '{"id": "o"}')
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [ASKEL, *words],
            env=environment(REDIS_URL=shop.url),
            cwd=tmp_path,
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_pipe_that_is_read_in_part_is_no_trouble(shop, tmp_path):
    shop.call("run", "checkout", '{"id": "o"}')
    done = subprocess.run(
        ["/bin/sh", "-c", f"{{ {ASKEL} ls; echo $? >&2; }} | head -1"],
        env=environment(REDIS_URL=shop.url),
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert (done.stdout.split()[0], done.stderr) == (b"RUN", b"0\n")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        ("two\nlines\t  of\r\nit", "two lines of it"),
        (f"{ESCAPE}[31mred\x07", r"\x1b[31mred\x07"),
        ("grün 注文 ✓", "grün 注文 ✓"),
        ("\u202eevil", r"\u202eevil"),
    ],
)
def test_text_of_anybodys_making_becomes_one_harmless_line(text, line):
    assert one_line(text) == line


def test_payloads_are_shown_as_json_and_cut():
    assert shown(None) == ""
    assert shown({"a": [1, "ä"]}) == '{"a":[1,"ä"]}'
    assert shown(LONG) == '"' + "x" * 70 + "…"
    assert ESCAPE not in shown(f"{ESCAPE}[31m")
