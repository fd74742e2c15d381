"""The only place where payloads are encoded and decoded.

A payload is JSON text. What JSON cannot carry is refused here, before Redis is touched; nothing is
changed silently. A ``Codec`` may also compress and encrypt; the functions of this module are those
of the plain one.
"""

from askel.state.codec.compression import Zstd
from askel.state.codec.encryption import AesGcm, KeySource
from askel.state.codec.envelopes import PayloadTransform, Sealed
from askel.state.codec.payloads import Codec
from askel.state.codec.recorded import MAX_ERROR_TEXT, serialize_error, shortened
from askel.state.codec.values import MAX_DEPTH, MAX_INTEGER, MAX_PAYLOAD

__all__ = [
    "MAX_DEPTH",
    "MAX_ERROR_TEXT",
    "MAX_INTEGER",
    "MAX_PAYLOAD",
    "PLAIN",
    "AesGcm",
    "Codec",
    "KeySource",
    "PayloadTransform",
    "Sealed",
    "Zstd",
    "check_json",
    "convert",
    "decode",
    "encode",
    "read_error",
    "serialize_error",
    "shortened",
]

#: Plain JSON, nothing sealed: what everything uses that is given no codec.
PLAIN = Codec()

encode = PLAIN.encode
decode = PLAIN.decode
convert = PLAIN.convert
check_json = PLAIN.check_json
read_error = PLAIN.read_error
