"""Sealed payloads: compressed, encrypted, still JSON; opened, refused, or left to who can."""

import base64
import copy
import hashlib
import hmac
import json
import pickle
import subprocess
import sys
import threading
import traceback
from contextlib import suppress

import msgspec
import pytest
import zstandard
from cryptography.hazmat.primitives.ciphers import aead
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from askel import (
    AesGcm,
    Codec,
    InvalidOptionError,
    PayloadError,
    Sealed,
    SealedPayloadError,
    SerializedError,
    TamperedPayloadError,
    UnknownKeyError,
    Zstd,
)
from askel.sizes import size_bytes
from askel.state import codec

SECRET = "hunter2"
KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
AES = AesGcm({"k1": KEY}, "k1")
BOTH = Codec([Zstd(min_size=64), AES])
LARGE = {"card": SECRET, "text": "lorem ipsum " * 100}
LOOKALIKES = [
    {"~sealed": 1},
    {"~sealed": ["zstd", "AAAA"]},
    {"~sealed": ["aesgcm:k1", "AAAA"], "more": 1},
    {"~sealed": {"~sealed": []}},
    msgspec.Raw(b'{"~sealed" : ["AAAA"]}'),
]
CODECS = [Codec(), Codec([Zstd(min_size=0)]), Codec([AES]), BOTH]


def parts(text):
    return json.loads(text)["~sealed"]


@pytest.mark.parametrize("each", CODECS, ids=repr)
@pytest.mark.parametrize(
    "value", [None, "", 0, [], {}, LARGE, *LOOKALIKES], ids=lambda v: type(v).__name__
)
def test_what_is_sealed_is_opened(each, value):
    text = each.encode(value)
    plain = json.loads(msgspec.json.encode(value))

    assert each.decode(text) == plain
    assert each.decode(text.decode()) == plain
    assert each.check_json(text.decode()) == text
    assert each.encode(value) == text  # what is repeated is recognized by its bytes
    json.loads(text)


def test_envelopes_say_what_was_applied():
    assert parts(BOTH.encode(LARGE))[:-1] == ["zstd", "aesgcm:k1"]
    assert parts(BOTH.encode("short"))[:-1] == ["aesgcm:k1"]
    assert parts(Codec().encode({"~sealed": 1}))[:-1] == []
    assert len(BOTH.encode(LARGE)) < len(codec.encode(LARGE)) / 2
    assert SECRET.encode() not in BOTH.encode(LARGE)


def test_text_that_is_no_envelope_is_read_as_it_is():
    for text in ('{"a":1}', '{"a":{"~sealed":[]}}', '["~sealed"]', ' {"a":1}\n'):
        assert BOTH.decode(text) == json.loads(text)
        assert BOTH.check_json(text) == text.strip().encode()


@pytest.mark.parametrize("text", [' {"~sealed":["AAAA"]}', '\n{"~sealed":["zstd","AAAA"]} '])
def test_blanks_do_not_hide_an_envelope(text):
    """A history entry keeps none of them: what was plain in the hash would be sealed there."""
    with pytest.raises(PayloadError):
        BOTH.check_json(text)
    assert BOTH.encode(msgspec.Raw(text.encode())) != text.encode()
    assert not BOTH.encode(msgspec.Raw(text.encode()))[:1].isspace()


def test_small_or_incompressible_payloads_are_left_alone():
    zstd = Codec([Zstd(min_size="1KiB")])
    for value in ("x" * 1_021, base64.b85encode(bytes(range(256)) * 3).decode() + "!" * 100):
        if len(value) < 1_024:
            assert zstd.encode(value) == codec.encode(value)
    assert zstd.encode("x" * 1_022) != codec.encode("x" * 1_022)


def test_the_payload_limit_counts_the_plain_text():
    value = ["é" * 1_000] * 500
    text = Codec([AES]).encode(value)

    assert len(text) > codec.MAX_PAYLOAD
    assert Codec([AES]).decode(text) == value
    assert Codec([AES]).check_json(text.decode()) == text
    with pytest.raises(PayloadError, match="more than the limit"):
        BOTH.encode("x" * codec.MAX_PAYLOAD)
    with pytest.raises(PayloadError, match=r"data: a sealed payload of .* more than the limit"):
        Codec([AES]).check_json(text.decode(), what="data", limit=1_000)


def envelope(*labels, data):
    return json.dumps(
        {"~sealed": [*labels, base64.b64encode(data).decode()]}, separators=(",", ":")
    )


def test_a_bomb_is_not_unpacked():
    bomb = zstandard.ZstdCompressor().compress(b" " * 50_000_000)
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(b" " * 50_000_000)
    twice = zstandard.ZstdCompressor().compress(bomb)
    stated = (50_000_000).to_bytes(4, "little")
    reader = Codec([Zstd(), AES])
    assert bomb.index(stated) < 10

    for text in (envelope("zstd", data=bomb), envelope("zstd", "zstd", data=twice)):
        with pytest.raises(PayloadError, match="50000000 bytes of JSON are more"):
            reader.decode(text)
    with pytest.raises(TamperedPayloadError):
        reader.decode(envelope("zstd", data=unsized))
    with pytest.raises(TamperedPayloadError):  # the size it states is a lie
        reader.decode(envelope("zstd", data=bomb.replace(stated, (1_000).to_bytes(4, "little"), 1)))
    with pytest.raises(PayloadError, match="limit"):
        reader.decode(envelope(data=b" " * 4_000_000))
    with pytest.raises(PayloadError, match="limit"):
        reader.decode(envelope(data=b" " * 1_100_000))


# Keys.


def test_keys_rotate():
    old = Codec([AES])
    new = Codec([AesGcm({"k1": KEY, "k2": OTHER}, "k2")])
    text = old.encode(LARGE)

    assert new.decode(text) == LARGE
    assert parts(new.encode(LARGE))[0] == "aesgcm:k2"
    assert new.is_same(text, new.encode(LARGE))
    assert not new.is_same(text, new.encode("other"))
    with pytest.raises(UnknownKeyError, match="under key 'k2', which is not at hand") as refused:
        old.decode(new.encode(LARGE))
    assert refused.value.key_id == "k2"
    assert isinstance(refused.value, SealedPayloadError)
    # What others can open is passed on unseen; what nobody can is not.
    assert old.check_json(new.encode(LARGE).decode())
    only_reads = Codec([AesGcm({"k1": KEY}, None)])
    assert only_reads.decode(text) == LARGE
    assert only_reads.encode(LARGE) == codec.encode(LARGE)


def test_another_key_under_the_same_id_is_told_apart():
    with pytest.raises(TamperedPayloadError, match="under key 'k1'"):
        Codec([AesGcm({"k1": OTHER}, "k1")]).decode(BOTH.encode("short"))


def test_equal_payloads_are_equal_bytes_and_others_have_other_nonces():
    sealed = {BOTH.encode(value) for value in ("a", "b", ["a"], "a")}
    nonces = {base64.b64decode(parts(text)[-1])[:12] for text in sealed}

    assert len(sealed) == len(nonces) == 3
    other = Codec([AesGcm({"k2": KEY}, "k2")]).encode("a")
    assert base64.b64decode(parts(other)[-1])[:12] not in nonces  # the id is bound, too


@pytest.mark.parametrize(
    "change",
    [
        lambda p: ["aesgcm:k2", p[-1]],
        lambda p: ["aesgcm", p[-1]],
        lambda p: ["zstd", *p],
        lambda p: ["aesgcm:k1", *p],
        lambda p: p[1:],
        lambda p: [p[0], "AAAA"],
        lambda p: [p[0], ""],
        lambda p: [p[0], p[1][:-4]],
        lambda p: [p[0], "A" + p[1][1:]],
        lambda p: [p[0], p[1] + "===="],
        lambda p: [p[0], p[1] + "\n"],
        lambda p: [p[0].upper(), p[1]],
        lambda p: [p[0] + ":x", p[1]],
        lambda p: [],
        lambda p: ["aesgcm:k1"] * 20 + p,
        lambda p: [1, 2],
        lambda p: "text",
    ],
)
def test_a_changed_envelope_is_refused(change):
    reader = Codec([Zstd(), AesGcm({"k1": KEY, "k2": OTHER}, "k1")])
    changed = json.dumps({"~sealed": change(parts(BOTH.encode(SECRET)))})

    for read in (reader.decode, reader.check_json, lambda t: reader.convert(t.encode(), str)):
        with pytest.raises(PayloadError) as refused:
            read(changed)
        assert_silent(refused.value)


def assert_silent(error):
    shown = "".join(traceback.format_exception(error)) + repr(error)
    assert SECRET not in shown
    assert error.__cause__ is None


def test_a_codec_without_the_transform_says_which():
    for read in (codec.decode, codec.read_error, lambda t: codec.convert(t, str)):
        with pytest.raises(
            SealedPayloadError, match="sealed with 'aesgcm', which this codec lacks"
        ):
            read(BOTH.encode(SECRET))
    assert codec.check_json(BOTH.encode(SECRET).decode())


def test_a_lenient_codec_shows_what_it_cannot_open():
    lenient = Codec(lenient=True)
    text = BOTH.encode(SECRET)

    assert lenient.decode(text) == json.loads(text)
    assert lenient.decode('{"~sealed":7}') == {"~sealed": 7}
    assert lenient.read_error(text) == SerializedError(message=text.decode())
    assert Codec([AES], lenient=True).decode(text) == SECRET


def test_errors_are_sealed_and_read():
    error = SerializedError("no such card", stack=SECRET, code="404", name="CardError")

    assert BOTH.read_error(BOTH.encode(error)) == error
    assert SECRET.encode() not in BOTH.encode(error)
    assert BOTH.read_error(b'{"message":"by another program"}').message == "by another program"


MUTABLE = [BOTH.encode(LARGE), BOTH.encode(1), Codec([Zstd(0)]).encode(LARGE)]


@settings(deadline=None)
@given(st.sampled_from(MUTABLE), st.data())
def test_no_mutation_makes_a_reader_fail_otherwise(text, data):
    changed = bytearray(text)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        match data.draw(st.sampled_from(["set", "cut", "insert"])):
            case "set":
                changed[at] = data.draw(st.integers(0, 255))
            case "cut":
                del changed[at : at + data.draw(st.integers(1, 9))]
            case "insert":
                changed[at:at] = data.draw(st.binary(max_size=9))
        if not changed:
            break
    raw = bytes(changed)
    for read in (
        BOTH.decode,
        BOTH.read_error,
        lambda t: BOTH.check_json(t.decode("utf-8", "replace")),
    ):
        with suppress(PayloadError):
            read(raw)


@settings(deadline=None)
@given(st.binary(max_size=60), st.lists(st.sampled_from(["zstd", "aesgcm:k1", "x"]), max_size=3))
def test_no_envelope_of_others_makes_a_reader_fail_otherwise(data, labels):
    with suppress(PayloadError):
        BOTH.decode(envelope(*labels, data=data))


@settings(deadline=None)
@given(st.binary(max_size=3_000))
def test_bytes_of_any_kind_are_sealed_and_opened(data):
    for transform in (Zstd(min_size=0), AES):
        sealed = transform.seal(data, "inner")
        if sealed is not None:
            assert transform.open(sealed, "inner", 10_000) == data


# Where keys come from, and where they do not go.


@pytest.mark.parametrize(
    "write",
    [
        lambda path: KEY,
        lambda path: KEY.hex(),
        lambda path: base64.b64encode(KEY).decode(),
        lambda path: base64.urlsafe_b64encode(KEY).decode().rstrip("="),
        lambda path: path.write_bytes(KEY) and path,
        lambda path: path.write_text(f"{KEY.hex()}\n") and path,
        lambda path: path.write_text(f"{base64.b64encode(KEY).decode()}\n") and path,
    ],
)
def test_keys_are_read_in_every_form(write, tmp_path):
    source = write(tmp_path / "key")

    assert Codec([AesGcm({"k1": source}, "k1")]).decode(BOTH.encode("short")) == "short"


@pytest.mark.parametrize(
    ("keys", "current", "why"),
    [
        ({"k": SECRET}, "k", "key 'k' is not 32 bytes"),
        ({"k": SECRET.encode()}, "k", "key 'k' is not 32 bytes"),
        ({"k": "zz" * 32}, "k", "key 'k' is not 32 bytes"),
        ({"k": 5}, "k", "key 'k' is not 32 bytes"),
        ({"k:1": KEY}, "k:1", "key id 'k:1' is not allowed"),
        ({"": KEY}, "", "key id '' is not allowed"),
        ({"k": KEY}, "l", "current='l' is none of the keys"),
        ({}, "l", "current='l' is none of the keys"),
    ],
)
def test_wrong_keys_are_refused_unseen(keys, current, why):
    with pytest.raises(InvalidOptionError, match=why) as refused:
        AesGcm(keys, current)
    assert_silent(refused.value)


def test_a_missing_key_file_is_named_by_its_key(tmp_path):
    with pytest.raises(InvalidOptionError, match="file of key 'k1' cannot be read: No such file"):
        AesGcm({"k1": tmp_path / SECRET}, "k1")


def test_keys_are_shown_nowhere():
    text = AesGcm.new_key()
    cipher = AesGcm({"k1": text}, "k1")
    assert len(base64.b64decode(text)) == 32
    assert repr(Codec([Zstd(), cipher])) == (
        "Codec([Zstd(min_size=1024, level=3), AesGcm(keys=['k1'], current='k1')], "
        "compat=False, lenient=False)"
    )
    raw = base64.b64decode(text)
    shown = f"{cipher!r}{cipher}{vars(cipher)}"
    assert text not in shown
    assert raw.hex() not in shown
    assert repr(raw)[2:-1] not in shown
    for clone in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="holds keys"):
            clone(cipher)


# What codecs are made of.


class Reverse:
    name = "reverse"

    def seal(self, data, inner):
        return Sealed("reverse", data[::-1])

    def open(self, sealed, inner, limit):
        return sealed.data[::-1]


class Broken(Reverse):
    def open(self, sealed, inner, limit):
        raise RuntimeError(f"cannot open {sealed.data!r}")


class Rude(Reverse):
    def seal(self, data, inner):
        return Sealed('"],', data)


def test_transforms_of_ones_own():
    own = Codec([Reverse(), AES])

    assert own.decode(own.encode(LARGE)) == LARGE
    with pytest.raises(TamperedPayloadError, match="by 'reverse'") as refused:
        Codec([Broken()]).decode(Codec([Reverse()]).encode(SECRET))
    assert_silent(refused.value)
    with pytest.raises(PayloadError, match="a label that is not allowed"):
        Codec([Rude()]).encode(1)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Codec([object()]), "object is no payload transform"),
        (lambda: Codec([Zstd(), Zstd()]), "two transforms are called 'zstd'"),
        (lambda: Codec(limit=1_000), "limit=1000: give at least 131072"),
        (lambda: Zstd(level=0), "level=0"),
        (lambda: Zstd(min_size="1 kB"), "is not a size"),
        (lambda: Zstd(min_size=-1), "is not a size"),
        (lambda: Zstd(min_size=True), "is not a size"),
    ],
)
def test_wrong_options_are_refused(make, why):
    with pytest.raises(InvalidOptionError, match=why):
        make()


@pytest.mark.parametrize(
    ("text", "size"), [("0B", 0), ("512B", 512), (" 64 KiB", 65_536), ("1MiB", 2**20), (7, 7)]
)
def test_sizes_are_read(text, size):
    assert size_bytes(text) == size


@pytest.mark.parametrize(
    ("module", "make", "extra"),
    [("zstandard", Zstd, "zstd"), ("cryptography", lambda: AesGcm({}, None), "crypto")],
)
def test_a_missing_library_names_the_extra(module, make, extra, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InvalidOptionError, match=rf"pip install 'askel\[{extra}\]'"):
        make()


def test_a_plain_codec_loads_no_library():
    code = (
        "import sys; from askel import Codec; Codec().encode({'a': 1}); "
        "print([name for name in ('zstandard', 'pydantic') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_threads_share_a_codec():
    done = []

    def work(number):
        value = [number] * 2_000
        for _ in range(50):
            assert BOTH.decode(BOTH.encode(value)) == value
        done.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == list(range(6))


def test_the_cipher_is_the_one_that_is_documented():
    """What the docs say of the bytes, done by hand: others may read them."""
    secret = HKDF(SHA256(), 64, salt=None, info=b"askel payload aesgcm 1").derive(KEY)
    label, data = parts(Codec([AES]).encode(SECRET))
    raw, bound = base64.b64decode(data), b"aesgcm:k1 "
    plain = aead.AESGCM(secret[:32]).decrypt(raw[:12], raw[12:], bound)

    assert (label, plain) == ("aesgcm:k1", codec.encode(SECRET))
    signed = len(bound).to_bytes(4, "big") + bound + plain
    assert hmac.digest(secret[32:], signed, hashlib.sha256)[:12] == raw[:12]
