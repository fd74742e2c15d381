"""Whatever a payload is, it comes back as it was or is refused: never changed silently."""

import dataclasses
import math
from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askel import AesGcm, Codec, PayloadError, Zstd
from askel.state import codec
from askel.state.codec.values import MAX_DEPTH

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
MINUTES = st.timezones() | st.none()

SEALING = Codec([Zstd(min_size=0), AesGcm({"k": bytes(32)}, "k")])


class Record(msgspec.Struct):
    number: float
    decimal: Decimal
    raw: bytes
    uid: UUID
    span: timedelta
    pairs: tuple[tuple[str, int], ...]
    words: frozenset[str]
    by_name: dict[str, list[Decimal | None]]


@dataclasses.dataclass
class Data:
    record: Record
    at: datetime | None


class Model(pydantic.BaseModel):
    number: float
    decimal: Decimal
    uid: UUID
    span: timedelta
    words: frozenset[str]
    by_name: dict[str, list[int]]
    next: "Model | None" = None


RECORDS = st.builds(
    Record,
    number=st.floats(allow_nan=False, allow_infinity=False),
    decimal=st.decimals(allow_nan=False, allow_infinity=False),
    raw=st.binary(max_size=20),
    uid=st.uuids(),
    span=st.timedeltas(),
    pairs=st.lists(st.tuples(TEXT, st.integers()), max_size=3).map(tuple),
    words=st.frozensets(TEXT, max_size=3),
    by_name=st.dictionaries(
        TEXT,
        st.lists(st.none() | st.decimals(allow_nan=False, allow_infinity=False), max_size=2),
        max_size=2,
    ),
)
DATA = st.builds(Data, record=RECORDS, at=st.none() | st.datetimes())
MODELS = st.deferred(
    lambda: st.builds(
        Model,
        number=st.floats(allow_nan=False, allow_infinity=False),
        decimal=st.decimals(allow_nan=False, allow_infinity=False, places=3),
        uid=st.uuids(),
        span=st.timedeltas(timedelta(0), timedelta(days=1_000)),
        words=st.frozensets(TEXT, max_size=3),
        by_name=st.dictionaries(TEXT, st.lists(st.integers(), max_size=2), max_size=2),
        next=st.none() | MODELS,
    )
)

# Anything at all, of builtin types: what JSON has, and what it lacks.
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=3)
    | st.complex_numbers()
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.floats(), inner, max_size=3)
        | st.sets(st.integers() | st.text(max_size=3), max_size=3)
        | st.builds(lambda value: Data(value, None), inner)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(DATA)
def test_records_come_back_equal(value):
    assert codec.convert(codec.encode(value), Data) == value
    assert SEALING.convert(SEALING.encode(value), Data) == value


@settings(deadline=None)
@given(MODELS)
def test_models_come_back_equal(value):
    assert codec.convert(codec.encode([value]), list[Model]) == [value]


@settings(deadline=None)
@given(st.datetimes(timezones=MINUTES))
def test_times_come_back_or_are_refused(value):
    offset = value.utcoffset()
    if offset is not None and (offset.seconds % 60 or offset.microseconds):
        with pytest.raises(PayloadError, match="offset"):
            codec.encode(value)
        return
    read = codec.convert(codec.encode(value), datetime)
    assert (read.replace(tzinfo=None), read.utcoffset()) == (
        value.replace(tzinfo=None),
        value.utcoffset(),
    )


def carried(value: Any) -> Any:
    """Return what JSON makes of *value* by the documented rules, or raise what refuses it."""
    match value:
        case None | bool() | int():
            return value
        case float():
            if not math.isfinite(value):
                raise PayloadError
            return value
        case str():
            return value.encode().decode()
        case bytes():
            return msgspec.to_builtins(value)
        case list() | tuple() | set():
            return [carried(item) for item in value]
        case dict():
            if not all(isinstance(key, str) for key in value):
                raise PayloadError
            return {key.encode().decode(): carried(item) for key, item in value.items()}
        case Data():
            return {"record": carried(value.record), "at": None}
    raise PayloadError


def in_order(value):
    """Return *value* with its lists in one order: some of them were sets, which have none."""
    match value:
        case list():
            return sorted((in_order(part) for part in value), key=repr)
        case dict():
            return {key: in_order(part) for key, part in value.items()}
    return value


@settings(deadline=None)
@given(ANYTHING)
def test_anything_is_carried_by_the_rules_or_refused(value):
    try:
        expected = carried(value)
    except (PayloadError, UnicodeEncodeError):
        for each in (codec.PLAIN, SEALING):
            with pytest.raises(PayloadError):
                each.encode(value)
    else:
        for each in (codec.PLAIN, SEALING):
            assert in_order(each.decode(each.encode(value))) == in_order(expected)


@settings(deadline=None)
@given(st.binary(max_size=30) | st.text(max_size=30).map(lambda t: t.encode("utf-8", "replace")))
def test_no_bytes_make_a_reader_fail_otherwise(text):
    for read in (
        codec.decode,
        codec.read_error,
        lambda x: codec.convert(x, Data),
        lambda x: codec.convert(x, Model),
        lambda x: codec.check_json(x.decode("utf-8", "replace")),
    ):
        with suppress(PayloadError):
            read(text)


@settings(deadline=None)
@given(st.integers(1, 2 * MAX_DEPTH), st.lists(st.booleans(), min_size=1), st.integers(0, 70))
def test_depth_is_what_counts(depth, shape, wide):
    value: Any = [[]] * wide
    for level in range(depth):
        value = [value] if shape[level % len(shape)] else {"k": value}
    deepest = depth + (2 if wide else 1)
    if deepest <= MAX_DEPTH:
        assert codec.decode(codec.encode(value)) == value
        codec.check_json(codec.encode(value).decode())
    else:
        with pytest.raises(PayloadError, match="deeper"):
            codec.encode(value)
        with pytest.raises(PayloadError, match="deeper"):
            codec.check_json(msgspec.json.encode(value).decode())
