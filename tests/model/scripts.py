"""The scripts of the protocol, each one atomic change of the store, with the answers they give.

They are a second writing-down of `state/askel/state/lua/`, short enough to be explored. `broken`
names what is left out, so that it can be shown that the exploration finds it missing.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.model import owning, recording
from tests.model.recording import fire
from tests.model.rules import Answer

__all__ = ["SCRIPTS", "fire"]

SCRIPTS: dict[str, Callable[..., Answer]] = {
    one.__name__: one
    for one in (
        owning.start,
        owning.activate,
        owning.turn,
        owning.requeue,
        recording.record,
        recording.settle,
        recording.bury,
        recording.acknowledge,
        recording.begin,
        recording.complete,
        recording.put_back,
        recording.delete,
    )
}
