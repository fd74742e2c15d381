"""The only place where payloads are encoded and decoded.

A payload is JSON text. What JSON cannot carry is refused here, before Redis is touched; nothing is
changed silently.
"""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec

from askel.errors import PayloadError
from askel.state.models import SerializedError

#: Largest payload that is accepted, in bytes of JSON.
MAX_PAYLOAD = 1024 * 1024
#: Deepest nesting that is accepted; far below what exhausts a decoder's stack.
MAX_DEPTH = 64
#: Longest text kept of an error message or stack, in characters.
MAX_ERROR_TEXT = 4_096

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()
_error_decoder = msgspec.json.Decoder(SerializedError)
_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_PLAIN = frozenset({str, int, float, bool, type(None)})
_WRONG = (msgspec.MsgspecError, TypeError, ValueError, RecursionError, OverflowError)


def encode(value: Any, *, limit: int = MAX_PAYLOAD) -> bytes:
    """Return *value* as JSON text.

    Raises:
        PayloadError: JSON cannot carry it (unknown type, NaN, a cycle, a lone surrogate), it is
            nested deeper than ``MAX_DEPTH``, or longer than *limit* bytes.
    """
    try:
        text = _encoder.encode(value)
    except _WRONG as error:
        msg = f"a {type(value).__name__} cannot be carried as JSON: {_reason(error)}"
        raise PayloadError(msg) from error
    if b"null" in text and _has_nan(value):
        msg = "NaN and infinity cannot be carried as JSON"
        raise PayloadError(msg)
    _check_size(text, limit)
    _check_depth(text)
    if type(value) not in _PLAIN:
        decode(text)  # a Raw inside is passed on as it is, and may be anything
    return text


def decode(text: bytes | str) -> Any:
    """Return the value of JSON *text* that a user or another program wrote.

    Raises:
        PayloadError: It is not JSON.
    """
    try:
        return _decoder.decode(text)
    except _WRONG as error:
        msg = f"not valid JSON: {_reason(error)}"
        raise PayloadError(msg) from error


def check_json(text: str, *, what: str = "payload", limit: int = MAX_PAYLOAD) -> bytes:
    """Return *text* as bytes if it is acceptable JSON.

    Raises:
        PayloadError: Naming *what* is wrong: no JSON, too long, too deep.
    """
    raw = text.encode("utf-8", "surrogatepass")
    try:
        _check_size(raw, limit)
        decode(raw)  # before the depth: its measure takes quadratic time on unclosed text
        _check_depth(raw)
    except PayloadError as error:
        msg = f"{what}: {error}"
        raise PayloadError(msg) from error
    return raw


def convert(text: bytes, wanted: Any) -> Any:
    """Return JSON *text* as an instance of the annotation *wanted* (a Struct, a dataclass, Any).

    Raises:
        PayloadError: The text does not fit the type.
    """
    try:
        return msgspec.json.decode(text, type=wanted)
    except Exception as error:  # a type's own __post_init__ may raise anything
        raise PayloadError(_reason(error)) from error


def serialize_error(error: BaseException, *, stack: str | None = None) -> SerializedError:
    """Return what is stored of *error*; never raises, whatever its own code does."""
    try:
        message = str(error)
    except BaseException:  # noqa: BLE001 - a broken __str__ must not hide the failure itself
        message = "(the error could not be shown)"
    try:
        code = getattr(error, "code", None)
    except BaseException:  # noqa: BLE001 - nor must a broken property
        code = None
    return SerializedError(
        message=_clean(message) or _clean(type(error).__name__),
        stack=_clean(stack) if stack else None,
        code=_code(code),
        name=_clean(type(error).__name__),
    )


def _code(code: Any) -> str | None:
    if not isinstance(code, str | int):
        return None
    try:
        return _clean(str(code))
    except Exception:  # noqa: BLE001 - a subclass shows itself as it likes, and numbers may be huge
        return None


def read_error(text: bytes) -> SerializedError:
    """Return the error in JSON *text*, in whatever shape another program recorded it."""
    try:
        return _error_decoder.decode(text)
    except _WRONG:
        pass
    try:
        value = _decoder.decode(text)
    except _WRONG:
        value = text.decode("utf-8", "replace")
    fields = value if isinstance(value, dict) else {"message": value}
    parts = {
        name: part if isinstance(part, str) else _encoder.encode(part).decode()
        for name in SerializedError.__struct_fields__
        if (part := fields.get(name)) is not None
    }
    return SerializedError(**{"message": text.decode("utf-8", "replace"), **parts})


def _clean(text: str) -> str:
    """Cut *text* to the stored length and replace what UTF-8 cannot carry."""
    return text[:MAX_ERROR_TEXT].encode("utf-8", "replace").decode()


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep, or contains itself"
    if isinstance(error, UnicodeError):
        return "it contains text that is not valid UTF-8"
    return str(error)


def _check_size(text: bytes, limit: int) -> None:
    if len(text) > limit:
        msg = f"{len(text)} bytes of JSON are more than the limit of {limit}"
        raise PayloadError(msg)


def _check_depth(text: bytes) -> None:
    # Almost every payload has fewer brackets than the limit; only the others are measured.
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for match in _STRUCTURE.finditer(text):
        sign = match[0]
        if sign in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                msg = f"JSON nested deeper than {MAX_DEPTH} levels"
                raise PayloadError(msg)
        elif sign in b"]}":
            depth -= 1


def _has_nan(value: Any) -> bool:
    """Tell whether *value* holds a float that JSON lacks (msgspec writes null for it)."""
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, float):
            if not math.isfinite(item):
                return True
        elif isinstance(item, dict):
            todo.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            todo.extend(item)
        elif isinstance(item, msgspec.Struct) or hasattr(item, "__dataclass_fields__"):
            todo.append(msgspec.to_builtins(item))
    return False
