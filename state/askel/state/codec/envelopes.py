"""Envelopes: sealed payloads are JSON text too, so that they stand wherever payloads stand.

``{"~sealed":["zstd","aesgcm:k1","KLUv…"]}``: what was applied, in order, then the bytes as base64.
With nothing applied it holds a payload that merely looks like an envelope. Text that does not begin
like this is no envelope and is read as it is: programs without askel write plain JSON.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import msgspec

from askel.errors import PayloadError, SealedPayloadError, TamperedPayloadError

#: What the text of an envelope, and nothing else that this library writes, begins with.
BEGINNING = b'{"~sealed"'

_LABEL = re.compile(r"[a-z][a-z0-9-]{0,31}(:[A-Za-z0-9._-]{1,64})?")
_MOST_LABELS = 8
# What base64 and the labels may add; an envelope beyond it cannot hold an accepted payload.
_ROOM = 4_096


class Sealed(NamedTuple):
    """What a transform has made: its label, and the bytes.

    The label is the transform's name, then, if it needs one to open the bytes again, a colon and a
    parameter: ``aesgcm:k1``. It is stored in the clear.
    """

    label: str
    data: bytes


@runtime_checkable
class PayloadTransform(Protocol):
    """Changes the bytes of payloads on their way to Redis and back.

    The same payload should be sealed to the same bytes: a write that is repeated is recognized by
    its bytes, and refused as another one if they differ.
    """

    @property
    def name(self) -> str:
        """What labels begin with: small letters, digits, hyphens."""

    def seal(self, data: bytes, inner: str) -> Sealed | None:
        """Return *data* sealed, or None to leave it as it is.

        Args:
            data: JSON text, or what the transform before has made of it.
            inner: The labels of the transforms before, joined by spaces.
        """

    def open(self, sealed: Sealed, inner: str, limit: int) -> bytes:
        """Return what was sealed, at most about *limit* bytes.

        Raises:
            SealedPayloadError: This process lacks what it takes (a key).
            PayloadError: It was changed, or is larger.
        """


class _Envelope(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"parts": "~sealed"}
):
    parts: list[str]


_decode_envelope = msgspec.json.Decoder(_Envelope).decode


def seal(text: bytes, transforms: Sequence[PayloadTransform]) -> bytes:
    """Return JSON *text* as *transforms* seal it, in their order; plain if none wants to."""
    labels: list[str] = []
    data = text
    for transform in transforms:
        sealed = transform.seal(data, " ".join(labels))
        if sealed is not None:
            if _LABEL.fullmatch(sealed.label) is None:
                raise PayloadError(f"transform {transform.name!r} made a label that is not allowed")
            labels.append(sealed.label)
            data = sealed.data
    if not labels and not text.startswith(BEGINNING):
        return text
    parts = "".join(f'"{label}",' for label in labels).encode()
    return b'{"~sealed":[%b"%b"]}' % (parts, base64.b64encode(data))


def unseal(text: bytes, transforms: Mapping[str, PayloadTransform], limit: int) -> bytes:
    """Return the JSON text in the envelope *text*.

    Raises:
        SealedPayloadError: A transform or key that it takes is not at hand.
        TamperedPayloadError: It is damaged, or was changed.
        PayloadError: What it holds is larger than *limit*.
    """
    labels, data = _parts_of(text, limit)
    while labels:
        label = labels.pop()
        name = label.partition(":")[0]
        transform = transforms.get(name)
        if transform is None:
            raise SealedPayloadError(
                f"the payload is sealed with {name!r}, which this codec lacks: "
                "give it the same transforms as the program that wrote the payload"
            )
        data = _opened(transform, Sealed(label, data), " ".join(labels), limit)
    if len(data) > limit:
        raise PayloadError(f"{len(data)} bytes of JSON are more than the limit of {limit}")
    return data


def _parts_of(text: bytes, limit: int) -> tuple[list[str], bytes]:
    """Return the labels and the bytes in the envelope *text*."""
    if len(text) > 2 * limit + _ROOM:
        raise PayloadError(f"a sealed payload of {len(text)} bytes is more than the limit allows")
    try:
        *labels, data = _decode_envelope(text).parts
        raw = binascii.a2b_base64(data, strict_mode=True)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    else:
        if len(labels) <= _MOST_LABELS and all(map(_LABEL.fullmatch, labels)):
            return labels, raw
    raise TamperedPayloadError('the payload begins like a sealed one ("~sealed") but is none')


def _opened(transform: PayloadTransform, sealed: Sealed, inner: str, limit: int) -> bytes:
    try:
        return transform.open(sealed, inner, limit)
    except PayloadError:
        raise
    except Exception:  # noqa: BLE001, S110 - whatever a library raises, its message may quote
        pass
    raise TamperedPayloadError(f"the payload cannot be opened by {transform.name!r}: it is damaged")
