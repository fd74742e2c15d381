"""A structure-aware mutator: commands and payloads that are nearly right, by a seeded die.

It begins with what is valid and breaks it in one to four places: fields are dropped, doubled,
exchanged, renamed; values are replaced by nasty ones, or changed byte by byte.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Sequence

from askel import AesGcm, Codec, Zstd

Fields = list[bytes]

#: A codec that compresses and encrypts, and its key is no secret.
SEALING = Codec([Zstd(min_size="64B"), AesGcm({"k1": bytes(range(32))}, "k1")])
LENIENT = Codec(lenient=True)

#: Commands in a row that are about the same few runs.
_TOGETHER = 100
_RUNS = 5
_STEP: dict[str, object] = {"step_name": "pack: the 2nd", "rpc_name": "echo"}
#: One valid command of each type and more, without their run.
VALID: list[dict[str, object]] = [
    {"type": "run.start", "workflow": "echoes", "input": {"n": 1, "s": "é\n"}},
    {"type": "run.start", "workflow": "echoes", "id": "order-42", "if_exists": "return"},
    {"type": "run.start", "workflow": "echoes", "if_exists": "after-terminal", "v": 1},
    {"type": "run.create", "workflow": "mine", "input": [1, 2.5, None, True]},
    {"type": "run.complete", "output": {"ok": True}},
    {"type": "run.fail", "error": {"message": "no", "name": "Error"}},
    {"type": "run.cancel", "reason": "changed\tmind"},
    {"type": "run.terminate"},
    {"type": "run.suspend"},
    {"type": "run.resume"},
    {"type": "run.signal", "name": "paid", "data": 3},
    {"type": "run.signal", "name": "paid", "data": "x", "id": "s-1"},
    {"type": "run.approve", "reason": "ok", "data": {}},
    {"type": "run.advance"},
    {"type": "step.execute", **_STEP, "data": [1], "retries": 1, "retry_delay": "10ms"},
    {"type": "step.execute", **_STEP, "timeout": "30s", "id": "e-1", "traceparent": "00-ab"},
    {"type": "step.complete", "step_name": "pack: the 2nd", "attempt": 1, "result": 9},
    {"type": "step.fail", "step_name": "pack: the 2nd", "attempt": 1, "error": {"message": "x"}},
    {"type": "step.heartbeat", "step_name": "pack: the 2nd", "attempt": 1},
    {"type": "timer.fire", "step_name": "pack: the 2nd", "attempt": 1, "born": "1"},
]
_PAYLOADS = ("input", "data", "result", "error", "output")
_NAMES = (
    *("type", "run_id", "workflow", "step_name", "rpc_name", "name", "id", "at", "v", "queue"),
    *("attempt", "retries", "retry_delay", "timeout", "if_exists", "reason", "reply_to", "born"),
    *("unknown_since", "tries", "put_back", "traceparent", *_PAYLOADS),
)
_DEEP = 2_000
NASTY: list[bytes] = [
    *(b"", b" ", b"\0", b"\n", b"\r\n", b"\x1b[31m", b"\xff\xfe", b"\xc0\xaf", b"\xed\xa0\x80"),
    *(b"null", b"true", b"[]", b"{}", b'""', b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-0"),
    *(
        b"1" * 400,
        b"9007199254740993",
        b"-1",
        b"0",
        b"1.0",
        b"01",
        b"0x1",
        b"1_000",
        b"18446744073709551616",
    ),
    *(
        rb'"\ud800"',
        rb'"\u0000"',
        b'"\x00"',
        b'"\xff"',
        b"\xef\xbb\xbf{}",
        b"{} {}",
        b'{"a":1,"a":2}',
    ),
    *(b"[" * 64 + b"]" * 64, b"[" * 65 + b"]" * 65, b"[" * _DEEP, b"[" * _DEEP + b"]" * _DEEP),
    *(b'{"a":' * _DEEP + b"1" + b"}" * _DEEP, b"'", b"$(id)", b"{{7*7}}", b"%s%n", b"../../x"),
    *(
        b"*",
        b"?",
        b"[a-z]",
        b"{r0}",
        b"r0:pack",
        b":",
        b"::",
        b"a:b:c",
        "\u202eevil".encode(),
        "\u0661".encode(),
    ),
    *(
        b"__proto__",
        b"a#1",
        b"a[1]",
        b"a:onError",
        b"-",
        b"+",
        b">",
        b"$",
        b"(",
        b"0-0",
        b"5s",
        b"3d",
    ),
    *(b'{"~sealed":[]}', b'{"~sealed":["zstd","AA=="]}', b'{"~sealed":["aesgcm:k1","AA=="]}'),
    *(b'{"~sealed":["nope",""]}', b'{"~sealed":[1]}', b'{"~sealed":["zstd","zstd","zstd","KLUv"]}'),
    *(b"x" * 600, "é".encode() * 300, b'"' + b"y" * 5_000 + b'"'),
    # A frame of zstd that says it holds 2^60 bytes.
    b'{"~sealed":["zstd","'
    + base64.b64encode(b"\x28\xb5\x2f\xfd\xe0" + b"\0" * 7 + b"\x10\x01\0\0")
    + b'"]}',
]


class Mutator:
    """Makes inputs, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self.die = random.Random(seed)
        self.made = 0
        self._ways: Sequence[Callable[[Fields], None]] = (
            *(self._drop, self._double, self._swap, self._rename, self._add),
            *(self._replace, self._replace, self._bytes, self._bytes, self._retype),
        )

    def valid(self) -> Fields:
        """Return a valid command for one of a few runs; its payloads sealed now and then."""
        run_id = f"r{self.made // _TOGETHER}-{self.die.randrange(_RUNS)}"
        # Many make the run: without one, most commands are refused for the want of it.
        made = self.die.choice(VALID[:4] if self.die.random() < 0.3 else VALID)
        given = {**made, "run_id": run_id}
        self.made += 1
        codec = SEALING if self.die.random() < 0.1 else None
        words: Fields = []
        for name, value in given.items():
            text = str(value).encode()
            if name in _PAYLOADS:
                text = codec.encode(value) if codec else json.dumps(value).encode()
            words += [name.encode(), text]
        return words

    def command(self) -> Fields:
        """Return the fields of an entry, broken in one to four places; one in four is whole."""
        words = self.valid()
        if self.die.random() < 0.75:
            for _ in range(self.die.choice((1, 1, 1, 2, 3, 4))):
                if len(words) >= 2:
                    self.die.choice(self._ways)(words)
        return words or [b"", b""]

    def payload(self) -> bytes:
        """Return something that is nearly JSON, or nearly an envelope."""
        value = self.die.choice((*VALID, [VALID], "x" * self.die.randrange(200), 2**53, -1.5e300))
        text = (SEALING if self.die.random() < 0.5 else LENIENT).encode(value)
        roll = self.die.random()
        if roll < 0.15:
            return self.die.choice(NASTY)
        if roll < 0.4 and text.startswith(b'{"~sealed"'):
            *labels, data = json.loads(text)["~sealed"]
            raw = self.changed(base64.b64decode(data))
            self.die.shuffle(labels)
            return json.dumps({"~sealed": [*labels, base64.b64encode(raw).decode()]}).encode()
        return self.changed(text) if roll < 0.95 else text

    def changed(self, data: bytes) -> bytes:
        """Return *data* with a few bytes flipped, cut out, doubled or put in."""
        raw = bytearray(data)
        for _ in range(self.die.choice((1, 1, 2, 5))):
            at = self.die.randrange(len(raw) + 1)
            roll = self.die.randrange(5)
            if roll == 0 and raw:
                raw[at % len(raw)] ^= 1 << self.die.randrange(8)
            elif roll == 1:
                del raw[at : at + self.die.randrange(1, 9)]
            elif roll == 2:
                raw[at:at] = self.die.choice(NASTY)[:64]
            elif roll == 3:
                raw[at:at] = raw[at : at + 20]
            else:
                del raw[at:]
        return bytes(raw)

    def _at(self, words: Fields) -> int:
        return 2 * self.die.randrange(len(words) // 2)

    def _drop(self, words: Fields) -> None:
        at = self._at(words)
        del words[at : at + 2]

    def _double(self, words: Fields) -> None:
        at = self._at(words)
        words += words[at : at + 2] * self.die.choice((1, 1, 1, 40))

    def _swap(self, words: Fields) -> None:
        one, two = self._at(words), self._at(words)
        words[one + 1], words[two + 1] = words[two + 1], words[one + 1]

    def _rename(self, words: Fields) -> None:
        at = self._at(words)
        words[at] = self.die.choice((self.die.choice(_NAMES).encode(), self.changed(words[at])))

    def _add(self, words: Fields) -> None:
        words += [self.die.choice(_NAMES).encode(), self.die.choice(NASTY)]

    def _replace(self, words: Fields) -> None:
        words[self._at(words) + 1] = self.die.choice(NASTY)

    def _bytes(self, words: Fields) -> None:
        at = self._at(words) + 1
        words[at] = self.changed(words[at])

    def _retype(self, words: Fields) -> None:
        other = str(self.die.choice(VALID)["type"]).encode()
        for at in range(0, len(words), 2):
            if words[at] == b"type":
                words[at + 1] = other


def as_fields(words: Sequence[str]) -> Fields:
    """Return the words of a kept case as bytes: text as Latin-1, so that any byte can be kept."""
    return [word.encode("latin-1") for word in words]
