"""JSON text read as a type: what msgspec knows, and pydantic models anywhere inside."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from askel.errors import PayloadError
from askel.state.codec.models import MisfitError, adapter_for, is_model, read_model
from askel.state.codec.values import from_json

_encode = msgspec.json.Encoder().encode


def read_as(text: bytes, wanted: Any) -> Any:
    """Return JSON *text* as an instance of the annotation *wanted*.

    Raises:
        PayloadError: The text does not fit. The message names the field, never the value.
    """
    if wanted is Any:
        return from_json(text)
    misfit = ""
    try:
        return _reader_for(wanted)(text)
    except PayloadError:
        raise
    except Exception as error:  # noqa: BLE001 - a type's own __post_init__ may raise anything
        misfit = _shown(error)
    # Raised out here: the first error may quote the value, and must not be chained to this one.
    raise PayloadError(misfit)


def _reader_for(wanted: Any) -> Callable[[bytes], Any]:
    try:
        return _cached_reader(wanted)
    except TypeError:  # an annotation that cannot be hashed
        return _make_reader(wanted)


def _make_reader(wanted: Any) -> Callable[[bytes], Any]:
    if is_model(wanted):

        def read(text: bytes) -> Any:
            from_json(text)  # pydantic accepts more than JSON: NaN, for one
            return read_model(wanted, text)

        return read
    refusal = ""
    try:
        return msgspec.json.Decoder(wanted, dec_hook=_from_builtins).decode
    except Exception as error:  # noqa: BLE001 - TypeError, NameError, and what is to come
        refusal = f"{type(error).__name__}: {error}"
    adapter = adapter_for(wanted)
    if adapter is None:
        raise PayloadError(f"no JSON can be read as this type ({refusal})")
    return adapter


_cached_reader = lru_cache(maxsize=512)(_make_reader)


def _from_builtins(wanted: Any, value: Any) -> Any:
    """Make a *wanted*, which msgspec does not know, of a decoded *value*."""
    if is_model(wanted):
        return read_model(wanted, _encode(value))
    if wanted is object:
        return value
    raise MisfitError(f"no JSON can be read as a {getattr(wanted, '__name__', wanted)}")


def _shown(error: Exception) -> str:
    """Say what does not fit and where, in words that quote nothing of the value."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, UnicodeError):
        return "it contains text that is not valid UTF-8"
    if isinstance(error, MisfitError):
        return str(error)
    if not isinstance(error, msgspec.MsgspecError):
        return f"the type's own check raised {type(error).__name__}"
    text = str(error)
    cause = error.__cause__
    what, at, where = text.rpartition(" - at ")
    if not at:
        what, where = text, ""
    if cause is not None and not isinstance(cause, MisfitError):
        what = f"the type's own check raised {type(cause).__name__}"
    elif what.startswith(("Invalid enum value", "Invalid value")):
        what = "the value is none of those that the type has"
    elif what.startswith("Object contains unknown field"):
        what = "the object has a field that the type lacks"
    return f"{what} - at {where}" if where else what
