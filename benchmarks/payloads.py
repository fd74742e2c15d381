"""Payloads: JSON objects of one length, as an order might be, no two alike."""

from __future__ import annotations

import random
import string
from itertools import cycle
from typing import Any

import msgspec

from benchmarks.figures import BenchmarkError

_COUNT = 1_000


class Payloads:
    """An endless row of them, the same in every run of the benchmarks and for every system."""

    def __init__(self, size: int) -> None:
        """Make objects of *size* bytes as JSON without blanks."""
        source = random.Random(size)
        self.values = [_payload(source, size) for _ in range(_COUNT)]
        self.next = cycle(self.values).__next__


def _payload(source: random.Random, size: int) -> dict[str, Any]:
    name = "".join(source.choices(string.ascii_lowercase, k=source.randrange(5, 10)))
    made = {
        "orderId": f"A-{source.randrange(100_000, 1_000_000)}",
        "email": f"{name}@example.com",
        "items": source.randrange(10),
        "cents": source.randrange(1_000_000),
        "note": "",
    }
    room = size - len(msgspec.json.encode(made))
    if room < 0:
        raise BenchmarkError(f"payloads of {size} bytes are too small: at least {size - room}")
    made["note"] = "".join(source.choices(string.ascii_lowercase + " ", k=room))
    return made
