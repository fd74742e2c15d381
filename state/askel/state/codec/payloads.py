"""Codec: how an application's payloads are written and read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from askel.errors import InvalidOptionError, PayloadError, SealedPayloadError
from askel.state.codec.envelopes import BEGINNING, PayloadTransform, seal, unseal
from askel.state.codec.recorded import error_from
from askel.state.codec.typed import read_as
from askel.state.codec.values import (
    MAX_PAYLOAD,
    canonical,
    check_depth,
    check_integers,
    check_size,
    from_json,
    to_json,
)
from askel.state.models import SerializedError

# What any recorded error fits in: its four texts of 4,096 characters, each written as six bytes.
_LEAST_LIMIT = 128 * 1024
# What JSON allows around a value.
BLANKS = b" \t\r\n"
_BLANK = frozenset(bytes((code,)) for code in BLANKS)
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")


class Codec:
    """Writes values as JSON text that Redis keeps, and reads them again.

    All that work on the same runs (apps, clients, services) need codecs that open each other's
    payloads. A codec has no state of its own: threads and event loops may share one.
    """

    __slots__ = ("_by_name", "_transforms", "compat", "lenient", "limit")

    def __init__(
        self,
        transforms: Iterable[PayloadTransform] = (),
        *,
        compat: bool = False,
        lenient: bool = False,
        limit: int = MAX_PAYLOAD,
    ) -> None:
        """Choose how payloads are written.

        Args:
            transforms: Applied in this order when writing: compress, then encrypt.
            compat: Refuse integers beyond 2^53, which Node would change.
            lenient: Read what cannot be opened as it stands, sealed, instead of raising; for
                programs that only show payloads.
            limit: Largest payload, in bytes of JSON before it is sealed.

        Raises:
            InvalidOptionError: Something is no transform, two have the same name, or *limit* is
                less than 128 KiB.
        """
        if isinstance(transforms, PayloadTransform):
            msg = f"transforms is a list: give Codec([{type(transforms).__name__}(…)])"
            raise InvalidOptionError(msg)
        self._transforms = tuple(transforms)
        self._by_name: dict[str, PayloadTransform] = {}
        for transform in self._transforms:
            if not isinstance(transform, PayloadTransform) or not _NAME.fullmatch(transform.name):
                msg = f"a {type(transform).__name__} is no payload transform: use Zstd or AesGcm"
                raise InvalidOptionError(msg)
            if transform.name in self._by_name:
                raise InvalidOptionError(f"two transforms are called {transform.name!r}")
            self._by_name[transform.name] = transform
        if limit < _LEAST_LIMIT:
            raise InvalidOptionError(f"limit={limit}: give at least {_LEAST_LIMIT}")
        self.compat = compat
        self.lenient = lenient
        self.limit = limit

    def __repr__(self) -> str:
        return f"Codec({list(self._transforms)}, compat={self.compat}, lenient={self.lenient})"

    @property
    def seals(self) -> bool:
        """Whether it has transforms: then one value may be stored as different texts."""
        return bool(self._transforms)

    def for_compat(self) -> Codec:
        """Return the same codec with ``compat`` on."""
        return Codec(self._transforms, compat=True, lenient=self.lenient, limit=self.limit)

    def encode(self, value: Any, *, limit: int | None = None) -> bytes:
        """Return *value* as the JSON text to store.

        Raises:
            PayloadError: JSON cannot carry it (unknown type, NaN, a key that is no text, a cycle, a
                lone surrogate), it is nested deeper than 64 levels, or longer than *limit* bytes.
        """
        text = to_json(value, limit=self.limit if limit is None else limit, compat=self.compat)
        if text[:1] in _BLANK:  # only a msgspec.Raw brings some: history would lose them
            text = text.strip(BLANKS)
        if self._transforms or text.startswith(BEGINNING):  # a mere lookalike gets a cover
            return seal(text, self._transforms)
        return text

    def decode(self, text: bytes | str) -> Any:
        """Return the value of JSON *text* that was stored, by whatever program.

        Raises:
            PayloadError: It is not JSON, or sealed and cannot be opened.
        """
        raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        return from_json(self.open(raw) if raw.startswith(BEGINNING) else raw)

    def convert(self, text: bytes, wanted: Any) -> Any:
        """Return stored JSON *text* as an instance of the annotation *wanted*.

        Raises:
            PayloadError: The text does not fit the type (the message names the field, never the
                value), or cannot be opened.
        """
        return read_as(self.open(text), wanted)

    def open(self, text: bytes) -> bytes:
        """Return the plain JSON text of stored *text*; what is not sealed is returned as it is.

        Raises:
            SealedPayloadError: This codec lacks the transform or the key.
            TamperedPayloadError: It is damaged, or was changed.
        """
        if not text.startswith(BEGINNING):
            return text
        try:
            return unseal(text, self._by_name, self.limit)
        except PayloadError:
            if self.lenient:
                return text
            raise

    def is_same(self, stored: bytes, sent: bytes) -> bool:
        """Tell whether two stored texts are one payload, whatever sealed it, in any order of keys.

        Raises:
            PayloadError: One of them cannot be opened, or is no JSON.
        """
        return stored == sent or canonical(self.open(stored)) == canonical(self.open(sent))

    def check_json(self, text: str, *, what: str = "payload", limit: int | None = None) -> bytes:
        """Return *text*, which another program has sent, as bytes if it is acceptable JSON.

        A sealed payload is opened for this; one that only others can open is accepted unseen.

        Raises:
            PayloadError: Naming *what* is wrong: no JSON, too long, too deep.
        """
        raw = text.encode("utf-8", "surrogatepass").strip(BLANKS)
        limit = self.limit if limit is None else limit
        try:
            self._check(raw, limit)
        except PayloadError as error:
            raise PayloadError(f"{what}: {error}") from None
        return raw

    def _check(self, raw: bytes, limit: int) -> None:
        if raw.startswith(BEGINNING):
            try:
                raw = unseal(raw, self._by_name, limit)
            except SealedPayloadError:
                return
        check_size(raw, limit)
        plain = from_json(raw)
        check_depth(raw, plain)
        if self.compat:
            check_integers(raw, plain)

    def read_error(self, text: bytes) -> SerializedError:
        """Return the error in stored *text*, in whatever shape another program recorded it.

        Raises:
            PayloadError: It is sealed and cannot be opened.
        """
        return error_from(self.open(text))
