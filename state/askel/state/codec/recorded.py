"""Errors as they are recorded: made of any exception, read from what any program wrote."""

from __future__ import annotations

from typing import Any

import msgspec

from askel.state.models import SerializedError

#: Longest text kept of an error message or stack, in characters.
MAX_ERROR_TEXT = 4_096

_decode_error = msgspec.json.Decoder(SerializedError).decode
_WRONG = (msgspec.MsgspecError, TypeError, ValueError, RecursionError, OverflowError)


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


def shortened(error: SerializedError) -> SerializedError:
    """Return *error* with each of its texts cut to the stored length."""
    return SerializedError(
        message=error.message[:MAX_ERROR_TEXT],
        stack=error.stack and error.stack[:MAX_ERROR_TEXT],
        code=error.code and error.code[:MAX_ERROR_TEXT],
        name=error.name and error.name[:MAX_ERROR_TEXT],
    )


def error_from(text: bytes) -> SerializedError:
    """Return the error in JSON *text*, in whatever shape another program recorded it."""
    try:
        return _decode_error(text)
    except _WRONG:
        pass
    try:
        value = msgspec.json.decode(text)
    except _WRONG:
        value = text.decode("utf-8", "replace")
    fields = value if isinstance(value, dict) else {"message": value}
    parts = {
        name: part if isinstance(part, str) else msgspec.json.encode(part).decode()
        for name in SerializedError.__struct_fields__
        if (part := fields.get(name)) is not None
    }
    return SerializedError(**{"message": text.decode("utf-8", "replace"), **parts})


def _code(code: Any) -> str | None:
    if not isinstance(code, str | int):
        return None
    try:
        return _clean(str(code))
    except Exception:  # noqa: BLE001 - a subclass shows itself as it likes, and numbers may be huge
        return None


def _clean(text: str) -> str:
    """Cut *text* to the stored length and replace what UTF-8 cannot carry."""
    return text[:MAX_ERROR_TEXT].encode("utf-8", "replace").decode()
