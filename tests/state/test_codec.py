"""Payloads: what JSON cannot carry is refused whole, nothing is changed silently."""

import dataclasses
import math
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from askel import PayloadError, SerializedError
from askel.state import codec

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=4), inner, max_size=4
        )
    ),
    max_leaves=12,
)


class Order(msgspec.Struct):
    id: str
    total: float = 0.0


@dataclasses.dataclass
class Line:
    price: float


@dataclasses.dataclass
class Picky:
    price: float

    def __post_init__(self):
        raise KeyError("price")


@given(JSON)
def test_json_values_come_back_as_they_were(value):
    assert codec.decode(codec.encode(value)) == value


@given(JSON)
def test_what_is_encoded_is_accepted_on_the_wire(value):
    text = codec.encode(value)

    assert codec.check_json(text.decode()) == text


def test_records_and_times_are_carried():
    value = {"order": Order("a", 1.5), "line": Line(2.0), "at": datetime(2025, 1, 2, tzinfo=UTC)}

    assert codec.decode(codec.encode(value)) == {
        "order": {"id": "a", "total": 1.5},
        "line": {"price": 2.0},
        "at": "2025-01-02T00:00:00Z",
    }


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: [1, None, x],
        lambda x: {"a": {"b": x}},
        lambda x: (x,),
        lambda x: Order("a", x),
        lambda x: [Line(x)],
        lambda x: {"x": [Order("a", x), None]},
    ],
)
def test_nan_and_infinity_are_refused_wherever_they_are(wrap, number):
    with pytest.raises(PayloadError, match="NaN and infinity cannot be carried"):
        codec.encode(wrap(number))


def test_null_beside_finite_floats_is_no_nan():
    assert codec.encode({"a": None, "b": [1.5, "null"]}) == b'{"a":null,"b":[1.5,"null"]}'


def cycle() -> Any:
    value: list[Any] = []
    value.append({"again": value})
    return value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (cycle(), "contains itself"),
        (object(), "a object cannot be carried"),
        ({"key": object()}, "cannot be carried"),
        ({(1, 2): 3}, "cannot be carried"),
        ("\ud800", "not valid UTF-8"),
        ({"\udfff": 1}, "not valid UTF-8"),
        (lambda: 0, "a function cannot be carried"),
    ],
)
def test_what_json_cannot_carry_is_refused(value, why):
    with pytest.raises(PayloadError, match=why):
        codec.encode(value)


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def test_depth_is_bounded():
    assert codec.decode(codec.encode(nested(codec.MAX_DEPTH))) == nested(codec.MAX_DEPTH)
    for depth in (codec.MAX_DEPTH + 1, 500):
        with pytest.raises(PayloadError, match="deeper than 64 levels"):
            codec.encode(nested(depth))
    with pytest.raises(PayloadError):
        codec.encode(nested(100_000))


def test_many_brackets_are_not_depth_nor_are_brackets_in_text():
    wide = [[], {}, '[{"\\', "]"] * 200

    assert codec.decode(codec.encode(wide)) == wide
    assert codec.check_json(codec.encode(wide).decode())


def test_size_is_bounded_in_bytes_of_json():
    assert len(codec.encode("x" * 98, limit=100)) == 100
    for value in ("x" * 99, "ü" * 50, "\n" * 50):
        with pytest.raises(PayloadError, match="bytes of JSON are more than the limit of 100"):
            codec.encode(value, limit=100)
    with pytest.raises(
        PayloadError, match="1048577 bytes of JSON are more than the limit of 1048576"
    ):
        codec.encode("x" * (codec.MAX_PAYLOAD - 1))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("NaN", "not valid JSON"),
        ("{'a':1}", "not valid JSON"),
        ("[1,]", "not valid JSON"),
        ("1 2", "not valid JSON"),
        ('"\\ud800"', "not valid JSON"),
        ("\ud800", "not valid"),
        ("9" * 5_000, "not valid JSON"),
        ("[" * 65 + "]" * 65, "deeper than 64"),
        ("[" * 100_000, "nested too deep"),
        ('"' + "x" * 200 + '"', "more than the limit of 150"),
    ],
)
def test_json_of_others_is_checked(text, why):
    limit = 150 if "limit" in why else codec.MAX_PAYLOAD
    with pytest.raises(PayloadError, match=f"^data: .*{why}"):
        codec.check_json(text, what="data", limit=limit)


def test_text_that_never_ends_is_refused_at_once():
    hostile = "[]," * 65 + '"' + '\\"' * 300_000

    begun = time.perf_counter()
    with pytest.raises(PayloadError, match="not valid JSON"):
        codec.check_json(hostile)
    assert time.perf_counter() - begun < 1


def test_large_text_with_quotes_is_measured_quickly():
    text = codec.encode(["[", ["\\" * 50_000, '"' * 50_000]] * 2 + [[]] * 100).decode()

    begun = time.perf_counter()
    codec.check_json(text)
    assert time.perf_counter() - begun < 1


def test_value_is_converted_to_the_wanted_type():
    assert codec.convert(b'{"id":"a","total":2}', Order) == Order("a", 2.0)
    assert codec.convert(b'{"price":2}', Line) == Line(2.0)
    assert codec.convert(b"[1]", Any) == [1]


@pytest.mark.parametrize("wanted", [Order, int, list[int], Picky, type("Own", (), {})])
def test_value_that_does_not_fit_is_a_payload_error(wanted):
    with pytest.raises(PayloadError):
        codec.convert(b'{"price":2}', wanted)


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class NumericError(Exception):
    def __str__(self):
        return 5  # noqa: PLE0307 - the mistake that is tested


class FatalError(Exception):
    def __str__(self):
        raise SystemExit(3)


class BadCodeError(Exception):
    @property
    def code(self):
        raise RuntimeError("no code")


class HttpError(Exception):
    code = 404


@pytest.mark.parametrize(
    ("error", "stored"),
    [
        (ValueError("wrong"), SerializedError("wrong", name="ValueError")),
        (ValueError(), SerializedError("ValueError", name="ValueError")),
        (HttpError("gone"), SerializedError("gone", code="404", name="HttpError")),
        (SystemExit(3), SerializedError("3", code="3", name="SystemExit")),
        (MuteError(), SerializedError("(the error could not be shown)", name="MuteError")),
        (NumericError(), SerializedError("(the error could not be shown)", name="NumericError")),
        (FatalError(), SerializedError("(the error could not be shown)", name="FatalError")),
        (BadCodeError("x"), SerializedError("x", name="BadCodeError")),
        (ValueError("a\ud800b"), SerializedError("a?b", name="ValueError")),
        (ValueError("x" * 5_000), SerializedError("x" * 4_096, name="ValueError")),
    ],
)
def test_every_error_can_be_stored(error, stored):
    assert codec.serialize_error(error) == stored
    assert codec.read_error(codec.encode(stored)) == stored


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (b'{"message":"m","stack":"s","code":"c","name":"n"}', SerializedError("m", "s", "c", "n")),
        (b'{"message":"m","code":404,"more":[1]}', SerializedError("m", code="404")),
        (b'{"message":"m","stack":null}', SerializedError("m")),
        (b'"boom"', SerializedError("boom")),
        (b"[1]", SerializedError("[1]")),
        (b'{"reason":1}', SerializedError('{"reason":1}')),
        (b"not JSON \xff", SerializedError("not JSON \N{REPLACEMENT CHARACTER}")),
    ],
)
def test_errors_that_other_programs_recorded_are_read(text, read):
    assert codec.read_error(text) == read
