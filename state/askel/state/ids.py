"""Where ids come from; injected, so that a simulation can seed them."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
import uuid
from binascii import b2a_base64
from typing import Protocol

#: Namespace of the idempotency keys of step code; equals the Node system's.
INVOCATION_NAMESPACE = uuid.UUID("70696b6b-7500-5770-9f6c-6f77000a0001")
#: Namespace of the run ids that are made from the id of a ``run.start`` command.
RUN_NAMESPACE = uuid.UUID("61736b65-6c00-5770-9f6c-72756e000001")


_SAFE = bytes.maketrans(b"+/", b"-_")


class IdSource(Protocol):
    """Makes ids that nobody else makes."""

    def run_id(self) -> str:
        """Return a new run id."""

    def nonce(self) -> str:
        """Return a short text that is unique without relying on a clock."""

    def suffix(self) -> str:
        """Return a very short text that is unique within one step."""


class SystemIds:
    """UUIDv7 run ids, which sort by their time of creation, and random nonces."""

    def run_id(self) -> str:
        """Return a UUIDv7 of now."""
        return _uuid7(time.time_ns() // 1_000_000, secrets.randbits(80))

    def nonce(self) -> str:
        """Return 96 random bits as text."""
        return _text(12)

    def suffix(self) -> str:
        """Return 48 random bits as text."""
        return _text(6)


def _text(size: int) -> str:
    """Return *size* random bytes, a multiple of three, as text that is safe in names.

    What ``secrets.token_urlsafe`` returns, in half its time: several are made for each write.
    """
    return b2a_base64(os.urandom(size), newline=False).translate(_SAFE).decode()


def idempotency_key(run_id: str, step_key: str) -> str:
    """Return the key that is the same for every attempt of a step, wherever it runs.

    It is the uuid5 of ``runId:stepKey`` and equals the Node system's ``invocationId``.
    """
    return str(uuid.uuid5(INVOCATION_NAMESPACE, f"{run_id}:{step_key}"))


def run_id_of_command(command_id: str) -> str:
    """Return the run id of a ``run.start`` that has an id of its own but names no run."""
    return str(uuid.uuid5(RUN_NAMESPACE, command_id))


def run_id_of_entry(stream: str, entry_id: str) -> str:
    """Return the run id of a command that names no run and has no id: the same at each delivery.

    It is a UUIDv7 of the time at which the entry was added.
    """
    milliseconds = int(entry_id.split("-", 1)[0])
    digest = hashlib.sha256(f"{stream} {entry_id}".encode()).digest()
    return _uuid7(milliseconds, int.from_bytes(digest[:10], "big"))


def _uuid7(milliseconds: int, random_80: int) -> str:
    """Return a UUIDv7 (RFC 9562): 48 bits of time, then random bits around version and variant."""
    value = milliseconds << 80 | random_80
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))
