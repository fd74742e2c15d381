"""Every type that a payload may have: what is stored, what is read with and without it."""

import dataclasses
import math
import uuid
from collections import OrderedDict, defaultdict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from types import MappingProxyType
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest

from askel import Codec, PayloadError
from askel.state import codec

SECRET = "hunter2"
NOON = datetime(2025, 1, 2, 12, tzinfo=UTC)


class Color(Enum):
    RED = "red"


class Size(IntEnum):
    LARGE = 3


class Unit(StrEnum):
    KG = "kg"


class Mode(Flag):
    READ = 1
    WRITE = 2


class Half(Enum):
    ONE = 0.5


class Mixed(Enum):
    A = "a"
    B = 1


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Share(float):
    pass


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Line:
    price: Any
    tags: Any = None


@dataclasses.dataclass(slots=True, frozen=True)
class Slot:
    a: Any


class Order(msgspec.Struct, rename="camel", omit_defaults=True):
    order_id: Any
    lines: list[Line] = []


class Person(pydantic.BaseModel):
    name: str
    born: date | None = None
    photo: bytes = b""
    tags: set[str] = set()
    extra: Any = None
    parent: "Person | None" = None


class Strict(pydantic.BaseModel, strict=True):
    id: uuid.UUID
    at: datetime
    amount: Decimal = pydantic.Field(alias="AMOUNT")

    @pydantic.computed_field
    @property
    def shown(self) -> str:
        return f"{self.amount} at {self.at}"


class Open(pydantic.BaseModel, extra="allow"):
    a: int = 1


@dataclasses.dataclass
class Team:
    lead: Person
    members: list[Person] = dataclasses.field(default_factory=list)


class Club(msgspec.Struct):
    team: Team
    by_name: dict[str, Person] = {}


ANNA = Person(name="Anna", born=date(2000, 2, 29), photo=b"jpg", tags={"a"})
ID = uuid.UUID(int=7)

# value, what is stored, what is read without a type, the type it is read with
CARRIED = [
    (None, "null", None, None),
    (True, "true", True, bool),
    (2**200, str(2**200), 2**200, int),
    (-0.0, "-0.0", -0.0, float),
    (5e-324, "5e-324", 5e-324, float),
    ("ü\0\U0001f600", '"ü\\u0000\U0001f600"', "ü\0\U0001f600", str),
    ([1, "a", None], '[1,"a",null]', [1, "a", None], list),
    ({"a": {"b": []}}, '{"a":{"b":[]}}', {"a": {"b": []}}, dict),
    ((1, 2), "[1,2]", [1, 2], tuple[int, int]),
    (Point(1, 2), "[1,2]", [1, 2], Point),
    ({1}, "[1]", [1], set[int]),
    (frozenset({"a"}), '["a"]', ["a"], frozenset[str]),
    (b"\xff\0", '"/wA="', "/wA=", bytes),
    (bytearray(b"a"), '"YQ=="', "YQ==", bytearray),
    (NOON, '"2025-01-02T12:00:00Z"', "2025-01-02T12:00:00Z", datetime),
    (NOON.replace(tzinfo=None), '"2025-01-02T12:00:00"', "2025-01-02T12:00:00", datetime),
    (
        datetime(2025, 7, 1, 12, 0, 0, 5, ZoneInfo("Europe/Helsinki")),
        '"2025-07-01T12:00:00.000005+03:00"',
        "2025-07-01T12:00:00.000005+03:00",
        datetime,
    ),
    (date(1, 1, 1), '"0001-01-01"', "0001-01-01", date),
    (time(1, 2, 3, 4), '"01:02:03.000004"', "01:02:03.000004", time),
    (timedelta(days=1, seconds=-1), '"PT86399S"', "PT86399S", timedelta),
    (ID, f'"{ID}"', str(ID), uuid.UUID),
    (Decimal("1.50"), '"1.50"', "1.50", Decimal),
    (Color.RED, '"red"', "red", Color),
    (Size.LARGE, "3", 3, Size),
    (Unit.KG, '"kg"', "kg", Unit),
    (Mode.READ | Mode.WRITE, "3", 3, Mode),
    (Text("a"), '"a"', "a", str),
    (Whole(3), "3", 3, int),
    (Share(0.5), "0.5", 0.5, float),
    ({Text("k"): 1, Unit.KG: 2}, '{"k":1,"kg":2}', {"k": 1, "kg": 2}, dict[str, int]),
    (OrderedDict(a=1), '{"a":1}', {"a": 1}, dict),
    (defaultdict(int, a=1), '{"a":1}', {"a": 1}, dict),
    (
        Line(1.5, ("a",)),
        '{"price":1.5,"tags":["a"]}',
        {"price": 1.5, "tags": ["a"]},
        None,
    ),
    (Slot(None), '{"a":null}', {"a": None}, Slot),
    (
        Order(ID, [Line(1)]),
        f'{{"orderId":"{ID}","lines":[{{"price":1,"tags":null}}]}}',
        {"orderId": str(ID), "lines": [{"price": 1, "tags": None}]},
        None,
    ),
    (msgspec.Raw(b'{"a":1}'), '{"a":1}', {"a": 1}, None),
    ([1], "[1]", [1], object),
    ([[1]], "[[1]]", [[1]], list[object]),
    (
        Strict(id=ID, at=NOON, AMOUNT=Decimal("1.50")),
        f'{{"id":"{ID}","at":"2025-01-02T12:00:00Z","AMOUNT":"1.50"}}',
        {"id": str(ID), "at": "2025-01-02T12:00:00Z", "AMOUNT": "1.50"},
        Strict,
    ),
    (Open(a=1, b=[2]), '{"a":1,"b":[2]}', {"a": 1, "b": [2]}, Open),
]


@pytest.mark.parametrize(
    ("value", "text", "plain", "wanted"), CARRIED, ids=lambda v: f"{type(v).__name__}"
)
def test_what_is_carried_comes_back(value, text, plain, wanted):
    stored = codec.encode(value)

    assert stored == text.encode()
    assert codec.decode(stored) == plain
    assert codec.convert(stored, Any) == plain
    if wanted is not None:
        read = codec.convert(stored, wanted)
        assert read == value
        assert isinstance(value, type(read))


def test_models_come_back_wherever_they_are():
    club = Club(Team(ANNA, [ANNA, Person(name="Bo", parent=ANNA)]), {"anna": ANNA})
    stored = codec.encode({"club": club})

    assert codec.convert(stored, dict[str, Club]) == {"club": club}
    assert codec.convert(codec.encode([ANNA, None]), list[Person | None]) == [ANNA, None]
    assert codec.decode(codec.encode(ANNA)) == {
        "name": "Anna",
        "born": "2000-02-29",
        "photo": "jpg",
        "tags": ["a"],
        "extra": None,
        "parent": None,
    }


def test_unions_that_only_pydantic_reads_are_read():
    wanted = Person | Open | bytes

    assert codec.convert(codec.encode(ANNA), wanted) == ANNA
    assert codec.convert(codec.encode(b"\xfb\xff"), bytes | Open) == b"\xfb\xff"
    with pytest.raises(PayloadError, match="at `"):
        codec.convert(b"[]", wanted)


def test_a_set_of_models_fields_is_read_strictly():
    with pytest.raises(PayloadError, match="not valid JSON"):  # pydantic itself would read NaN
        codec.convert(b'{"a":NaN}', Open)


OUT_OF_RANGE = (math.nan, math.inf, Decimal("NaN"), Decimal("-Infinity"), Share("nan"))
WRAPS = [
    lambda x: [x],
    lambda x: {"a": (None, {"b": x})},
    lambda x: Order("a", [Line(x)]),
    lambda x: Line(Slot([x])),
    lambda x: Person(name="a", extra=x),
    lambda x: Person(name="a", extra={"k": [x]}),
    lambda x: Team(Person(name="a", parent=Person(name="b", extra=(x,)))),
    lambda x: Open(b=deque([x])),
]


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("number", OUT_OF_RANGE, ids=repr)
def test_what_is_no_number_is_refused_wherever_it_is(wrap, number):
    with pytest.raises(PayloadError, match="NaN and infinity"):
        codec.encode(wrap(number))


KEYS = (1, 1.5, math.nan, b"a", True, None, ID, NOON, Decimal(1), (1,), Color.RED, Size.LARGE)


@pytest.mark.parametrize("wrap", [lambda x: x, *WRAPS])
@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_keys_that_are_no_text_are_refused_wherever_they_are(wrap, key):
    with pytest.raises(PayloadError, match=r"keys of JSON are text|is unsupported"):
        codec.encode(wrap({"b": {key: 1}}))


class Loud:
    def __init__(self):
        self.text = SECRET

    def __repr__(self):
        return SECRET


class Unwilling(pydantic.BaseModel):
    text: str

    @pydantic.field_serializer("text")
    def refuse(self, value):
        raise ValueError(f"not {value}")


def cyclic_model():
    person = Person(name="a")
    person.extra = [person]
    return person


def cyclic_dataclass():
    line = Line(1)
    line.tags = {"line": line}
    return line


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (Loud(), "a Loud cannot be carried"),
        ([deque([1])], "type .*deque is unsupported"),
        (MappingProxyType({}), "mappingproxy is unsupported"),
        (math.sqrt, "builtin_function_or_method is unsupported"),
        (1j, "complex is unsupported"),
        (ValueError(SECRET), "ValueError is unsupported"),
        (msgspec.Raw(b'{"a'), "not valid JSON"),
        (msgspec.Raw(b"NaN"), "not valid JSON"),
        (msgspec.Raw(b'"\xff"'), "not valid JSON"),
        ([Half.ONE], "Half cannot be read again"),
        ([Mixed.A], "Mixed cannot be read again"),
        ([time(1, tzinfo=ZoneInfo("Europe/Berlin"))], "offset from UTC is unknown"),
        (datetime(1900, 1, 1, tzinfo=ZoneInfo("Europe/Amsterdam")), "has seconds"),
        (NOON.replace(tzinfo=timezone(timedelta(seconds=1))), "has seconds"),
        (cyclic_model(), "raised ValueError"),
        (cyclic_dataclass(), "contains itself"),
        (Person(name=SECRET, photo=b"\xff"), "not valid UTF-8"),
        (Person(name=SECRET, extra=Loud()), "its serializer raised"),
        (Person.model_construct(name=[SECRET]), "its serializer raised"),
        (Unwilling(text=SECRET), "its serializer raised"),
        ([Line("\ud800")], "not valid UTF-8"),
        ([Text("\udfff")], "not valid UTF-8"),
        (10**5_000, "Exceeds the limit"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_json_cannot_carry_is_refused_without_quoting_it(value, why):
    with pytest.raises(PayloadError, match=why) as refused:
        codec.encode(value)
    assert_silent(refused.value)


def assert_silent(error):
    """The secret is neither in the message nor in what is chained to it."""
    chain = []
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    assert len(chain) == 1
    assert SECRET not in f"{chain[0]!r}{chain[0]}{getattr(chain[0], '__notes__', '')}"


def test_an_excluded_field_is_neither_written_nor_looked_at():
    class Cached(pydantic.BaseModel):
        a: int
        cache: Any = pydantic.Field(default=None, exclude=True)

    value = Cached(a=1, cache={1: math.nan})
    value.cache["again"] = value

    assert codec.encode(value) == b'{"a":1}'


class Checked(msgspec.Struct):
    a: str

    def __post_init__(self):
        raise ValueError(f"{self.a} - at `$.nowhere`")


class Tagged(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    a: int = 0
    color: Color | None = None
    word: Literal["x"] = "x"


class Validated(pydantic.BaseModel, extra="forbid"):
    a: str = ""
    by_name: dict[str, int] = {}

    @pydantic.field_validator("a")
    @classmethod
    def check(cls, value):
        raise ValueError(f"not {value}")


@pytest.mark.parametrize(
    ("text", "wanted", "why"),
    [
        (f'["{SECRET}"]', Slot | int, r"Expected `int \| object`, got `array`"),
        (f'{{"price":"{SECRET}","lines":[]}}', Order, "missing required field `orderId`"),
        (f'"{SECRET}"', int, "Expected `int`, got `str`"),
        (f'{{"k":["{SECRET}"]}}', dict[str, list[int]], r"got `str` - at `\$\[...\]\[0\]`"),
        (f'"{SECRET}"', Color, "none of those that the type has"),
        (f'{{"type":"{SECRET}"}}', Tagged | Checked, "custom|none of those|tag"),
        (f'{{"type":"Tagged","color":"{SECRET}"}}', Tagged, r"none of those .* at `\$.color`"),
        (f'{{"type":"Tagged","word":"{SECRET}"}}', Tagged, r"none of those .* at `\$.word`"),
        (f'{{"type":"Tagged","{SECRET}":1}}', Tagged, "a field that the type lacks"),
        (f'{{"a":"{SECRET}"}}', Checked, "own check raised ValueError"),
        (f'[{{"a":"{SECRET}"}}]', list[Checked], r"own check raised ValueError - at `\$\[0\]`"),
        (f'{{"name":["{SECRET}"]}}', Person, r"string_type at `\$\.name`"),
        (
            f'{{"lead":{{"born":"{SECRET}","name":"a"}}}}',
            Team,
            r"date.* at `\$\.born` - at `\$.lead`",
        ),
        (f'{{"a":"{SECRET}"}}', Validated, r"value_error at `\$\.a`"),
        (f'{{"{SECRET}":1}}', Validated, r"extra_forbidden at `\$\[...\]`"),
        (f'{{"by_name":{{"{SECRET}":[]}}}}', Validated, r"at `\$\.by_name\[...\]`"),
        (f'"{SECRET}', str, "truncated"),
        ("[" * 100_000, list, "nested too deep"),
        (f'"{SECRET}"', Loud, "no JSON can be read as a Loud"),
        (f'"{SECRET}"', Loud | Person, "no JSON can be read as this type"),
        (f'"{SECRET}"', "Unresolved", "raised PydanticUserError"),
    ],
)
def test_what_does_not_fit_names_the_field_and_never_the_value(text, wanted, why):
    with pytest.raises(PayloadError, match=why) as refused:
        codec.convert(text.encode(), wanted)
    assert_silent(refused.value)


COMPAT = Codec(compat=True)


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 2**64, 10**30])
@pytest.mark.parametrize("wrap", [lambda x: x, *WRAPS[:5], lambda x: msgspec.Raw(str(x).encode())])
def test_integers_that_node_would_change_are_refused_in_compat(wrap, number):
    with pytest.raises(PayloadError, match=r"beyond 2\^53"):
        COMPAT.encode(wrap(number))
    with pytest.raises(PayloadError, match=r"beyond 2\^53"):
        COMPAT.check_json(codec.encode(wrap(number)).decode())
    codec.encode(wrap(number))


def test_other_long_numbers_are_accepted_in_compat():
    value = [2**53, -(2**53), 1e300, 0.12345678901234567, "9" * 40, Decimal("9" * 40), True]

    assert COMPAT.decode(COMPAT.encode(value)) == [*value[:5], "9" * 40, True]
    assert COMPAT.for_compat().compat
    assert not codec.PLAIN.compat


def test_codecs_show_what_they_are():
    assert repr(Codec()) == "Codec([], compat=False, lenient=False)"
