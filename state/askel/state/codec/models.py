"""Pydantic models, known by what they offer: askel never imports pydantic.

A model writes itself in its JSON mode, by alias, without computed fields, and reads itself from the
same JSON: so bytes, strict fields and its own serializers come back as they were.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from askel.errors import PayloadError

_MOST_SHOWN = 3


class MisfitError(ValueError):
    """JSON does not fit a model. The message names fields and kinds of errors, no values."""


def is_model(kind: Any) -> bool:
    """Tell whether *kind* is a class of pydantic models."""
    return (
        isinstance(kind, type)
        and hasattr(kind, "model_validate_json")
        and hasattr(kind, "__pydantic_core_schema__")
    )


def as_builtins(model: Any) -> Any:
    """Return *model* as values that JSON has.

    Raises:
        PayloadError: Its serializer refuses, or would write something else than was declared.
    """
    refusal = ""
    try:
        return model.model_dump(mode="json", by_alias=True, round_trip=True, warnings="error")
    except UnicodeError:
        refusal = "it contains bytes or text that are not valid UTF-8"
    except Exception as error:  # noqa: BLE001 - serializers are anybody's code
        refusal = f"its serializer raised {type(error).__name__}"
    raise PayloadError(f"a {type(model).__name__} cannot be carried as JSON: {refusal}")


def members_of(model: Any) -> Iterable[Any]:
    """Return the values that *model* writes: of its fields, and of what else it was given."""
    fields = type(model).model_fields
    yield from (
        value
        for name, value in model.__dict__.items()
        if name in fields and not fields[name].exclude
    )
    yield model.__pydantic_extra__ or {}


def read_model(model: Any, text: bytes) -> Any:
    """Return JSON *text* as an instance of the class *model*.

    Raises:
        MisfitError: The text does not fit.
    """
    return _validated(model, model.model_validate_json, text)


def adapter_for(wanted: Any) -> Callable[[bytes], Any] | None:
    """Return a reader of annotations that only pydantic understands, if it is loaded here."""
    pydantic = sys.modules.get("pydantic")
    if pydantic is None:
        return None
    try:
        # Outside of models bytes are written as base64, as everywhere.
        adapter = pydantic.TypeAdapter(wanted, config={"val_json_bytes": "base64"})
    except Exception:  # noqa: BLE001 - it does not understand them, either
        return None

    def read(text: bytes) -> Any:
        return _validated(adapter, adapter.validate_json, text)

    return read


def _validated(model: Any, validate: Callable[[bytes], Any], text: bytes) -> Any:
    misfit = ""
    try:
        return validate(text)
    except Exception as error:  # noqa: BLE001 - validators are anybody's code
        misfit = _shown(model, error)
    # Raised out here: the first error holds the input, and must not be chained to this one.
    raise MisfitError(misfit)


def _shown(model: Any, error: Exception) -> str:
    details = getattr(error, "errors", None)
    if not callable(details):
        return f"the type's own check raised {type(error).__name__}"
    found = details(include_url=False, include_input=False, include_context=False)
    names = _names_in(model)
    shown = [f"{one['type']} at `${_path(one['loc'], names)}`" for one in found[:_MOST_SHOWN]]
    if len(found) > _MOST_SHOWN:
        shown.append(f"{len(found) - _MOST_SHOWN} more")
    return ", ".join(shown)


def _path(places: Iterable[Any], names: frozenset[str]) -> str:
    """Return where in the model, with the keys of dicts left out: they are data."""
    return "".join(
        f"[{place}]" if isinstance(place, int) else f".{place}" if place in names else "[...]"
        for place in places
    )


@lru_cache(maxsize=256)
def _names_in(model: Any) -> frozenset[str]:
    """Return the names and aliases of all fields that the schema of *model* declares."""
    schema = getattr(model, "__pydantic_core_schema__", None) or getattr(model, "core_schema", None)
    names: set[str] = set()
    todo: list[Any] = [schema]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            fields = item.get("fields")
            if isinstance(fields, dict):
                names |= fields.keys()
            if item.get("type") == "dataclass-field":
                names.add(item["name"])
            if isinstance(alias := item.get("validation_alias"), str):
                names.add(alias)
            todo.extend(item.values())
        elif isinstance(item, list | tuple):
            todo.extend(item)
    return frozenset(names)
