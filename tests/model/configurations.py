"""What is explored: small enough for every test run, or large, for `make model`."""

from __future__ import annotations

from tests.model.program import Child, Do, Queue, Sleep, Together, Wait
from tests.model.store import Command
from tests.model.world import Configuration, Faults

START: Command = ("start", 0, "start")
AGAIN: Command = ("start", 0, "start again")
CANCEL: Command = ("cancelled", 0, "cancel")
SUSPEND: Command = ("suspended", 0, "suspend")
RESUME: Command = ("running", 0, "resume")


def signal(name: str = "signal", command_id: str = "") -> Command:
    """Return the command that sends the signal ``go``."""
    return ("signal", 0, "go", name, command_id)


#: Sent when the run has been deleted.
LATER = (("start", 0, "start later"), signal("signal later"))

STEP = (Do("a"),)
STEP_AND_SIGNAL = (Do("a"), Wait("go"))
SIGNAL = (Wait("go"),)
QUEUE = (Queue("q"),)
QUEUE_AND_SIGNAL = (Queue("q"), Wait("go"))
RETRIED = (Do("a", failures=1),)
RETRIED_ON_QUEUE = (Queue("q", failures=1),)
TOGETHER = (Together(((Do("a"),), (Do("b"),))),)

#: Explored whole in every test run.
SMALL = [
    Configuration("step, signal: a death", STEP_AND_SIGNAL, (START, signal()), Faults(crash=1)),
    Configuration("step: a death, a pause, a lost reply", STEP, (START,), Faults(1, 1, 1)),
    Configuration("step: a pause, a late copy", STEP, (START,), Faults(pause=1, late=1)),
    Configuration("signal: a pause, a lost reply", SIGNAL, (START, signal()), Faults(0, 1, 1)),
    Configuration("step: a writer, a death", STEP, (START,), Faults(crash=1, writer=1)),
    Configuration("two starts: a lost reply", STEP, (START, AGAIN), Faults(lost=1)),
    Configuration("timer: a death, a lost reply", (Sleep("t"),), (START,), Faults(crash=1, lost=1)),
    Configuration("queue step: a pause", QUEUE, (START,), Faults(pause=1)),
    Configuration("queue step: a death, a stale handler hangs", QUEUE, (START,), Faults(1, hang=1)),
    Configuration("queue step, cancel: a late copy", QUEUE, (START, CANCEL), Faults(late=1)),
    Configuration("retry: a death, a lost reply", RETRIED, (START,), Faults(crash=1, lost=1)),
    Configuration("retry: a pause", RETRIED, (START,), Faults(pause=1)),
    Configuration("retry on a queue: a death", RETRIED_ON_QUEUE, (START,), Faults(crash=1)),
    Configuration("retry on a queue: a late copy", RETRIED_ON_QUEUE, (START,), Faults(late=1)),
    Configuration("a step that fails for good", (Do("a", 3, 1),), (START,), Faults(crash=1)),
    Configuration("attempts that are spent", (Queue("q", 0, 0),), (START,), Faults(crash=1)),
    Configuration("suspend, resume: a drain", STEP, (START, SUSPEND, RESUME), Faults(drain=1)),
    Configuration("suspend: a pause", STEP, (START, SUSPEND), Faults(pause=1)),
    Configuration("suspend, queue step", QUEUE, (START, SUSPEND, RESUME), Faults()),
    Configuration("steps together: a death", TOGETHER, (START,), Faults(crash=1)),
    Configuration("child: a death", (Child("child"),), (START,), Faults(crash=1), SIGNAL[:0]),
    Configuration("child: a late copy", (Child("child"),), (START,), Faults(late=1), SIGNAL[:0]),
    Configuration("deletion: a lost reply", STEP, (START,), Faults(lost=1, delete=1)),
    Configuration("deletion, another start", STEP, (START, AGAIN), Faults(delete=1)),
    Configuration("deletion, queue step", QUEUE, (START,), Faults(crash=1, delete=1)),
    Configuration("deletion, timer", (Sleep("t"),), (START,), Faults(delete=1), afterwards=LATER),
    Configuration(
        "deletion, signal", SIGNAL, (START, signal()), Faults(delete=1), afterwards=LATER
    ),
    Configuration("drain, step", STEP, (START,), Faults(drain=1, lost=1)),
    Configuration("drain, signal", SIGNAL, (START, signal()), Faults(drain=1)),
    Configuration(
        "one id twice", SIGNAL, (START, signal("one", "x"), signal("two", "x")), Faults()
    ),
]

#: Some of them, small ones, in which every refusal is met.
REFUSING = (
    "deletion: a lost reply",
    "one id twice",
    "deletion, another start",
    "step: a writer, a death",
    "deletion, signal",
    "child: a late copy",
    "suspend: a pause",
    "attempts that are spent",
    "queue step: a pause",
    "suspend, queue step",
)

#: Explored by `make model`.
LARGE = [
    Configuration("step, signal", STEP_AND_SIGNAL, (START, signal()), Faults(1, 1, 1)),
    Configuration("step, signal, late", STEP_AND_SIGNAL, (START, signal()), Faults(1, 1, 0, 1)),
    Configuration("step, signal, two pauses", STEP_AND_SIGNAL, (START, signal()), Faults(0, 2)),
    Configuration(
        "step, signal, writer", STEP_AND_SIGNAL, (START, signal()), Faults(1, 1, writer=1)
    ),
    Configuration("three workers", STEP, (START,), Faults(crash=1, pause=1, lost=1), workers=3),
    Configuration("step, signal, cancel", STEP_AND_SIGNAL, (START, signal(), CANCEL), Faults(1)),
    Configuration("two starts", STEP, (START, AGAIN), Faults(1, 1, 1)),
    Configuration("timer, step", (Sleep("t"), Do("a")), (START,), Faults(1, 1, 0, 1)),
    Configuration("queue step, late", QUEUE, (START,), Faults(1, 1, 0, 1)),
    Configuration("queue step, signal", QUEUE_AND_SIGNAL, (START, signal()), Faults(0, 1, 1)),
    Configuration("queue step, cancel", QUEUE, (START, CANCEL), Faults(1, 1)),
    Configuration("queue step, writer", QUEUE, (START,), Faults(1, 1, writer=1)),
    Configuration("queue step, hang", QUEUE, (START,), Faults(1, 1, 1, hang=1)),
    Configuration("retry", RETRIED, (START,), Faults(1, 1, 1)),
    Configuration("retry, late", RETRIED, (START,), Faults(0, 1, 0, 1)),
    Configuration("retry on a queue", RETRIED_ON_QUEUE, (START,), Faults(1, 1)),
    Configuration("retry on a queue, late", RETRIED_ON_QUEUE, (START,), Faults(0, 1, 0, 1)),
    Configuration("suspend", STEP, (START, SUSPEND, RESUME), Faults(1, 1)),
    Configuration("suspend, late", STEP, (START, SUSPEND, RESUME), Faults(0, 1, 0, 1)),
    Configuration("suspend, queue step", QUEUE, (START, SUSPEND, RESUME), Faults(1)),
    Configuration("steps together", TOGETHER, (START,), Faults(1, 1)),
    Configuration("steps together, late", TOGETHER, (START,), Faults(0, 1, 0, 1)),
    Configuration(
        "steps together, retried", (Together(((Do("a", 1),), (Do("b"),))),), (START,), Faults(1)
    ),
    Configuration("child", (Child("child"),), (START,), Faults(1, 1), STEP),
    Configuration("child, late", (Child("child"),), (START,), Faults(0, 1, 0, 1), SIGNAL[:0]),
    Configuration("child, cancel", (Child("child"),), (START, CANCEL), Faults(1), STEP),
    Configuration("deletion", STEP, (START, AGAIN), Faults(1, 1, delete=1)),
    Configuration("deletion, late", STEP, (START, AGAIN), Faults(late=1, delete=1)),
    Configuration("deletion, queue step", QUEUE, (START,), Faults(1, delete=1), afterwards=LATER),
    Configuration("deletion, retry", RETRIED, (START,), Faults(1, delete=1), afterwards=LATER),
    Configuration(
        "deletion, signal", SIGNAL, (START, signal()), Faults(1, delete=1), afterwards=LATER
    ),
    Configuration(
        "deletion, late, start", STEP, (START,), Faults(late=1, delete=1), afterwards=LATER
    ),
    Configuration("drain", STEP_AND_SIGNAL, (START, signal()), Faults(0, 1, 1, drain=1)),
    Configuration("drain, late", STEP, (START,), Faults(0, 1, 0, 1, drain=2)),
    Configuration(
        "one id twice", SIGNAL, (START, signal("one", "x"), signal("two", "x")), Faults(1, 1, 1)
    ),
]

#: What is left out -> a configuration in which that is found.
BROKEN = {
    "no-token": Configuration("a start acknowledged at once", STEP, (START,), Faults(crash=1)),
    "passivates-blindly": Configuration(
        "passivated without a look at the tail", SIGNAL, (START, signal()), Faults()
    ),
    "no-wake": Configuration("recorded without waking", SIGNAL, (START, signal()), Faults()),
    "acks-apart": Configuration("XACK in a second step", SIGNAL, (START, signal()), Faults(1)),
    "ignores-xack": Configuration(
        "XACK's answer ignored", SIGNAL, (START, signal()), Faults(lost=1)
    ),
    "renews-bare": Configuration("a bare XCLAIM renews", QUEUE, (START,), Faults(pause=1)),
    "complete-without-nonce": Configuration(
        "an outcome without a nonce", QUEUE, (START,), Faults(pause=1, late=1)
    ),
    "turn-without-owner": Configuration("a turn of anybody", STEP, (START,), Faults(pause=2)),
    "turn-without-number": Configuration(
        "a turn without its number", STEP_AND_SIGNAL, (START, signal()), Faults(late=1)
    ),
    "unlock-bare": Configuration(
        "a lock released by DEL", STEP_AND_SIGNAL, (START, signal()), Faults(pause=1, writer=1)
    ),
    "unchecked-pending": Configuration(
        "begun without being pending", QUEUE, (START,), Faults(pause=1, late=1)
    ),
    "begins-while-suspended": Configuration(
        "a turn begins in a suspended run", STEP, (START, SUSPEND, RESUME), Faults()
    ),
    "forgets-ids": Configuration(
        "ids are forgotten", SIGNAL, (START, signal("one", "x"), signal("two", "x")), Faults()
    ),
    "forgets": Configuration("a deletion is forgotten", STEP, (START, AGAIN), Faults(delete=1)),
    "ignores-birth": Configuration(
        "a timer of the run before", (Sleep("t"),), (START,), Faults(delete=1), afterwards=LATER
    ),
    "ignores-since": Configuration(
        "a signal for the run before",
        SIGNAL,
        (START, signal()),
        Faults(delete=1),
        afterwards=LATER,
    ),
    "requeues-blindly": Configuration(
        "handed back by who has lost it", STEP, (START,), Faults(pause=1, drain=1)
    ),
    "puts-back-blindly": Configuration(
        "put back by who has lost it", SIGNAL, (START, signal()), Faults(pause=1, drain=1)
    ),
    "puts-back-starts": Configuration(
        "a token put back as a start", STEP, (START,), Faults(pause=1, drain=1)
    ),
}
