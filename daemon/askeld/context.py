"""What every part of one worker shares."""

from __future__ import annotations

import msgspec

from askel import App
from askel.state import IdSource, Keys
from askel.workflow import Executes
from askeld.alarm import TimerAlarm
from askeld.config import WorkerConfig
from askeld.health import Health
from askeld.observability import Logger
from askeld.renewal import Leases
from askeld.work import Work


class WorkerContext(msgspec.Struct, frozen=True):
    """The app and settings of a worker, and what its parts meet at.

    ``consumer`` is the worker's name in the group. ``leases`` holds every entry in work, ``work``
    the tasks on them; ``alarm`` wakes the timer loop; ``health`` is what the process knows of
    itself.
    """

    app: App
    config: WorkerConfig
    consumer: str
    keys: Keys
    ids: IdSource
    executor: Executes
    leases: Leases
    work: Work
    alarm: TimerAlarm
    health: Health
    log: Logger
