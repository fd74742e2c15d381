"""An append-only file written by hand: what a server notes of one legal run, to plant lies in."""

import json

AT = 1_700_000_000_000
PREFIX = "p"


def encoded(*transitions):
    """Return the bytes that a server writes for *transitions*, each a list of commands."""
    lines = []
    for transition in transitions:
        commands = transition if len(transition) == 1 else [["MULTI"], *transition, ["EXEC"]]
        for words in commands:
            raw = [word if isinstance(word, bytes) else str(word).encode() for word in words]
            lines.append(b"*%d\r\n" % len(raw))
            lines += [b"$%d\r\n%s\r\n" % (len(word), word) for word in raw]
    return b"".join(lines)


def entry(t, at, **members):
    """Return an entry of a history."""
    return json.dumps({"at": AT + at, "t": t, **members}, separators=(",", ":"))


def key(kind, *rest):
    """Return a key."""
    return ":".join([PREFIX, kind, *rest])


def eid(number):
    """Return the id of the entry that was added *number* ms after the beginning."""
    return f"{AT + number}-0"


def add(number, queue="", **fields):
    """Return the XADD of a command."""
    flat = [word for pair in fields.items() for word in pair]
    return ["XADD", key("commands", *filter(None, [queue])), eid(number), *flat]


def claim(number, consumer, queue="", count=1):
    """Return what a server notes when it delivers, or renews, an entry."""
    stream = key("commands", *filter(None, [queue]))
    return [
        *("XCLAIM", stream, "askeld", consumer, "0", eid(number), "TIME", AT + number),
        *("RETRYCOUNT", count, "FORCE", "JUSTID", "LASTID", eid(number)),
    ]


def ack(number, queue=""):
    """Return the two commands that settle an entry."""
    stream = key("commands", *filter(None, [queue]))
    return [["XACK", stream, "askeld", eid(number)], ["XDEL", stream, eid(number)]]


def took_over(owner, at):
    """Return what makes *owner* the run's owner, under its lock."""
    return [
        ["HSET", key("ctl", "r"), "owner", owner, "robbed", "0"],
        ["HINCRBY", key("ctl", "r"), "fence", "1"],
        ["SET", key("lock", "r"), owner, "PXAT", AT + at + 10_000],
    ]


def turn(number, base):
    """Return what counts a turn."""
    words = ["turn", str(number), "last", f"{base}{number}.1", "robbed", "0", "nudged", ""]
    return ["HSET", key("ctl", "r"), *words]


def step(name, **fields):
    """Return the HSET of a step."""
    flat = [word for pair in fields.items() for word in pair]
    return ["HSET", key("step", "r", name), *flat]


def history(*entries):
    """Return the RPUSH of entries."""
    return ["RPUSH", key("history", "r"), *entries]


ONE, TWO = "host-10-aaaa/1", "host-20-bbbb/7"
BASE_ONE, BASE_TWO = "AAAAAAAA", "BBBBBBBB"
#: The timer of the sleep: its queue, and its command.
_FIRE = {"type": "timer.fire", "run_id": "r", "step_name": "rest", "attempt": "1"}
TIMER = json.dumps(
    ["", *(word for pair in _FIRE.items() for word in pair), "born", str(AT + 2)],
)
RESULT = '{"value":7,"attempt":1,"pid":10}'
OF_QUEUE = '{"value":8,"attempt":1,"pid":20}'


def _begins():
    return {
        "group": [["XGROUP", "CREATE", key("commands"), "askeld", "0", "MKSTREAM"]],
        "sent": [
            add(1, type="run.start", workflow="w", id="start-1", run_id="r", input="1"),
        ],
        "read": [claim(1, "host-10-aaaa")],
        "started": [
            [
                *("HSET", key("run", "r"), "id", "r", "workflow", "w", "status", "running"),
                *("input", "1", "createdAt", AT + 2, "updatedAt", AT + 2),
            ],
            ["ZADD", key("runs"), AT + 2, "r"],
            history(entry("run", 2, status="running", workflow="w", command="start-1")),
            ["XADD", key("events"), "MAXLEN", "=", "1", eid(2), "type", "run", "run_id", "r"],
            ["HSET", key("ctl", "r"), "token", eid(1), "start", eid(1), "turn", "0"],
            *took_over(ONE, 2),
        ],
        "begun": [
            step("a", status="running", attemptCount="1", nonce="AAAAAAAA1", stepId="r:a:s"),
            history(entry("step", 3, name="a", status="running", rpc="f", seen=1)),
            turn(1, BASE_ONE),
            ["DEL", key("lock", "r")],
        ],
        "done": [
            ["HDEL", key("ctl", "r"), "nudged"],
            step("a", status="succeeded", result=RESULT),
            step("b", status="pending", attemptCount="1", nonce="", retries="2", stepId="r:b:s"),
            add(4, "q", type="step.execute", run_id="r", step_name="b", rpc_name="g"),
            history(
                entry(
                    *("step", 4),
                    name="a",
                    status="succeeded",
                    attempt=1,
                    id="s",
                    rpc="f",
                    retries=2,
                    result=json.loads(RESULT),
                    seen=2,
                ),
                entry("step", 4, name="b", status="pending", rpc="g", seen=2),
            ),
            turn(2, BASE_ONE),
        ],
    }


def _is_told():
    return {
        "signal sent": [add(5, type="run.signal", run_id="r", id="sig-1", name="n")],
        "signal read": [claim(5, "host-20-bbbb")],
        "signalled": [
            *ack(5),
            ["HSET", key("ctl", "r"), "id:sig-1", "1"],
            history(entry("signal", 6, name="n", data=None, command="sig-1")),
            ["HSET", key("ctl", "r"), "nudged", "1"],
        ],
        "b read": [claim(4, "host-20-bbbb", "q")],
        "b begun": [
            step("b", status="running", attemptCount="1", nonce="fresh-1", lease=eid(4)),
            history(entry("step", 7, name="b", status="running")),
        ],
        "b done": [
            *ack(4, "q"),
            step("b", status="succeeded", result=OF_QUEUE),
            history(
                entry(
                    *("step", 8),
                    name="b",
                    status="succeeded",
                    attempt=1,
                    id="s",
                    rpc="g",
                    retries=2,
                    result=json.loads(OF_QUEUE),
                )
            ),
        ],
    }


def _ends():
    return {
        "rests": [
            step("rest", status="scheduled", attemptCount="1", nonce="", stepId="r:rest:s"),
            ["ZADD", key("timers"), AT + 500, TIMER],
            history(entry("step", 9, name="rest", status="scheduled", due=AT + 500, seen=7)),
            turn(3, BASE_ONE),
        ],
        "passive": [
            *ack(1),
            turn(4, BASE_ONE),
            ["HDEL", key("ctl", "r"), "token", "owner"],
        ],
        "fired": [
            ["ZREM", key("timers"), TIMER],
            add(
                *(501,),
                type="timer.fire",
                run_id="r",
                step_name="rest",
                attempt="1",
                born=str(AT + 2),
            ),
        ],
        "timer read": [claim(501, "host-20-bbbb")],
        "rested": [
            *ack(501),
            step("rest", status="succeeded", result="null"),
            history(
                entry(
                    *("step", 502),
                    name="rest",
                    status="succeeded",
                    attempt=1,
                    result=None,
                )
            ),
            add(502, type="run.advance", run_id="r"),
            ["HSET", key("ctl", "r"), "token", eid(502)],
        ],
        "token read": [claim(502, "host-20-bbbb")],
        "taken over": took_over(TWO, 503),
        "ended": [
            *ack(502),
            history(entry("run", 504, status="completed", output=15, seen=9)),
            turn(5, BASE_TWO),
            ["HSET", key("run", "r"), "status", "completed", "output", "15"],
            ["HDEL", key("ctl", "r"), "token", "owner"],
            ["DEL", key("lock", "r")],
        ],
    }


def legal():
    """Return the transitions of one run by name: a step here, one of a queue, a signal, a sleep."""
    return {**_begins(), **_is_told(), **_ends()}
