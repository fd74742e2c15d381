"""Values to JSON text and back: what is carried, and what is refused before anything is written.

msgspec does the work. Some of what it does is silent (NaN becomes null, the key 1 becomes "1"), so
the text is read again and compared with the value: equal means that nothing was changed. Only what
differs is looked at piece by piece, because a date differs from its text, too, and rightly so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime, time
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Any

import msgspec

from askel.errors import PayloadError
from askel.state.codec.models import as_builtins, is_model, members_of

#: Largest payload that is accepted, in bytes of JSON.
MAX_PAYLOAD = 1024 * 1024
#: Deepest nesting that is accepted; far below what exhausts a decoder's stack.
MAX_DEPTH = 64
#: Largest integer that programs carry exactly whose only numbers are doubles, such as Node's.
MAX_INTEGER = 2**53

_LONG_NUMBER = re.compile(rb"[0-9]{16}")
# What needs no second look: JSON has it, or msgspec writes and reads it without loss.
_EXACT = frozenset({str, int, bool, type(None)})
_TEXT = frozenset({str})
_NESTED = frozenset({dict, list})
_BASES: tuple[tuple[type, Any], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
)


def to_json(value: Any, *, limit: int = MAX_PAYLOAD, compat: bool = False) -> bytes:
    """Return *value* as JSON text.

    Raises:
        PayloadError: JSON cannot carry it, it is nested deeper than ``MAX_DEPTH``, or longer than
            *limit* bytes, or (*compat*) an integer in it is beyond ``MAX_INTEGER``.
    """
    refusal = ""
    text = b""
    try:
        text = _encode(value)
    except PayloadError:
        raise
    except Exception as error:  # noqa: BLE001 - attributes of a value may be code, and raise
        refusal = _why_not(error)
    # Raised out here, so that the first error, which may quote the value, is not chained to it.
    if refusal:
        raise PayloadError(f"a {type(value).__name__} cannot be carried as JSON: {refusal}")
    check_size(text, limit)
    if _is_flat(value) and not (compat and _LONG_NUMBER.search(text)):
        return text
    plain = from_json(text)  # a Raw inside is passed on as it is, and may be anything
    check_depth(text, plain)
    if not _is_equal(plain, value) and check_value(value):
        with contextlib.suppress(TypeError):  # members of unlike types have no order
            text = _encode_in_order(value)  # equal sets are one text
    if compat:
        check_integers(text, plain)
    return text


def _is_flat(value: Any) -> bool:
    """Tell whether *value* is nothing, or holds nothing, but what needs no second look."""
    kind = type(value)
    if kind is dict:
        return _TEXT.issuperset(map(type, value)) and _EXACT.issuperset(map(type, value.values()))
    return kind in _EXACT or (kind is list and _EXACT.issuperset(map(type, value)))


def from_json(text: bytes | str) -> Any:
    """Return the value of JSON *text*.

    Raises:
        PayloadError: It is not JSON.
    """
    try:
        return _decode(text)
    except Exception as error:  # noqa: BLE001 - ValueError, RecursionError, and what is to come
        refusal = _why_not(error)
    raise PayloadError(f"not valid JSON: {refusal}")


def canonical(text: bytes) -> bytes:
    """Return JSON *text* with the keys of each object in order: what equal payloads share.

    Raises:
        PayloadError: It is no JSON.
    """
    return _encode_in_order(from_json(text))


def check_size(text: bytes, limit: int) -> None:
    """Refuse *text* of more than *limit* bytes with a PayloadError."""
    if len(text) > limit:
        raise PayloadError(f"{len(text)} bytes of JSON are more than the limit of {limit}")


def check_depth(text: bytes, plain: Any) -> None:
    """Refuse JSON *text* (read: *plain*) nested deeper than ``MAX_DEPTH`` with a PayloadError."""
    # Almost every payload has fewer brackets than the limit; only the others are measured.
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return
    level = [plain]
    for _ in range(MAX_DEPTH):
        level = [
            part
            for item in level
            for part in (item.values() if type(item) is dict else item)
            if type(part) in _NESTED
        ]
        if not level:
            return
    raise PayloadError(f"JSON nested deeper than {MAX_DEPTH} levels")


def check_integers(text: bytes, plain: Any) -> None:
    """Refuse JSON *text* (read: *plain*) with an integer beyond ``MAX_INTEGER``."""
    if _LONG_NUMBER.search(text) is None:
        return
    todo = [plain]
    while todo:
        item = todo.pop()
        if type(item) is int and abs(item) > MAX_INTEGER:
            raise PayloadError("an integer beyond 2^53 cannot be carried to programs with doubles")
        if isinstance(item, dict):
            todo.extend(item.values())
        elif isinstance(item, list):
            todo.extend(item)


def check_value(value: Any) -> bool:
    """Refuse what msgspec would change without a word; tell whether there is a set in *value*.

    Raises:
        PayloadError: A float or Decimal that is not finite, a key that is no text, an enum that
            cannot be read again, a time whose offset JSON cannot say.
    """
    todo = [value]
    has_set = False
    seen: set[int] = set()  # what is encoded has no cycles; what a model leaves out may
    for item in todo:
        kind: type = type(item)
        if kind in _EXACT:
            continue
        if kind is float:
            _check_float(item)
            continue
        has_set = has_set or issubclass(kind, set | frozenset)
        look = _look_of(kind)
        if look is members_of:
            if id(item) in seen:
                continue
            seen.add(id(item))
        todo.extend(look(item))
    return has_set


@lru_cache(maxsize=1_024)
def _look_of(kind: type) -> Callable[[Any], Iterable[Any]]:
    """Return what checks an instance of *kind* and returns its parts."""
    for base, look in _LOOKS:
        if issubclass(kind, base):
            return look
    if issubclass(kind, msgspec.Struct):
        return _members(kind.__struct_fields__)
    if dataclasses.is_dataclass(kind):
        return _members(tuple(field.name for field in dataclasses.fields(kind)))
    if is_model(kind):
        return members_of
    return _members(tuple(each.name for each in getattr(kind, "__attrs_attrs__", ())))


def _members(names: tuple[str, ...]) -> Callable[[Any], Iterable[Any]]:
    return lambda item: [getattr(item, name, None) for name in names]


def _check_keys(item: dict[Any, Any]) -> Iterable[Any]:
    for key in item:
        if not isinstance(key, str):
            raise PayloadError(f"a key is a {type(key).__name__}; the keys of JSON are text")
    return item.values()


def _check_float(item: float | Decimal) -> Iterable[Any]:
    # A signaling NaN raises where its finiteness is asked.
    is_finite = item.is_finite() if isinstance(item, Decimal) else math.isfinite(item)
    if not is_finite:
        raise PayloadError("NaN and infinity cannot be carried as JSON")
    return ()


def _check_enum(item: Enum) -> Iterable[Any]:
    kind = type(item)
    if {type(member.value) for member in kind} not in ({str}, {int}):
        raise PayloadError(
            f"the enum {kind.__name__} cannot be read again: its values must be all text or all int"
        )
    return ()


def _check_offset(item: datetime | time) -> Iterable[Any]:
    if item.tzinfo is not None:
        offset = item.utcoffset()
        if offset is None or offset.seconds % 60 or offset.microseconds:
            raise PayloadError(
                f"a {type(item).__name__} whose offset from UTC is unknown or has seconds "
                "cannot be carried"
            )
    return ()


_LOOKS: tuple[tuple[Any, Callable[[Any], Iterable[Any]]], ...] = (
    (Enum, _check_enum),
    ((float, Decimal), _check_float),
    ((datetime, time), _check_offset),
    (dict, _check_keys),
    ((list, tuple, set, frozenset, deque), iter),
)


def _is_equal(plain: Any, value: Any) -> bool:
    try:
        return bool(plain == value)
    except Exception:  # noqa: BLE001 - the value's own comparison is anybody's code
        return False


def _of_builtin(item: Any) -> Any:
    """Return what msgspec can write for *item*, which it does not know."""
    if is_model(type(item)):
        plain = as_builtins(item)
        check_value(plain)
        return plain
    for base, plain_of in _BASES:
        if isinstance(item, base):
            return plain_of(item)  # a subclass of text or of a number is carried as what it is
    raise TypeError(f"Encoding objects of type {type(item).__name__} is unsupported")


def _why_not(error: Exception) -> str:
    """Say why, in words that quote nothing of the value."""
    if isinstance(error, RecursionError):
        return "it is nested too deep, or contains itself"
    if isinstance(error, UnicodeError):
        return "it contains text that is not valid UTF-8"
    if isinstance(error, msgspec.DecodeError):
        return str(error)
    text = str(error)
    if text.startswith(("Encoding objects of type", "Only dicts with", "Exceeds the limit")):
        return text
    return f"its own code raised {type(error).__name__}"


_encode = msgspec.json.Encoder(enc_hook=_of_builtin).encode
_encode_in_order = msgspec.json.Encoder(enc_hook=_of_builtin, order="deterministic").encode
_decode = msgspec.json.Decoder().decode
