"""AesGcm: payloads are encrypted and authenticated, under keys that rotate."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from askel.errors import InvalidOptionError, TamperedPayloadError, UnknownKeyError
from askel.state.codec.envelopes import Sealed

#: A key as its 32 bytes, as hex or base64 text, or as the file that holds any of these.
KeySource: TypeAlias = bytes | str | Path

_KEY_BYTES = 32
_NONCE_BYTES = 12
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PURPOSE = b"askel payload aesgcm 1"


class AesGcm:
    """Encrypts payloads by AES-256-GCM: new ones under the *current* key; all keys open theirs.

    The nonce is a keyed hash of the payload, so that the same payload is the same bytes and a write
    that is repeated is recognized. So whoever reads Redis can tell that two payloads under one key
    are equal, though not what they are.
    """

    name = "aesgcm"

    def __init__(self, keys: Mapping[str, KeySource], current: str | None) -> None:
        """Take the *keys* by id.

        Args:
            keys: Key ids, which are stored in the clear, and their keys.
            current: The id under which to encrypt; None only decrypts.

        Raises:
            InvalidOptionError: A key is not understood, *current* is none of them, or the library
                ``cryptography`` is not installed (extra ``crypto``).
        """
        if not isinstance(keys, Mapping):
            raise InvalidOptionError('keys is a mapping of ids: give AesGcm({"k1": key}, "k1")')
        aead, derive = _cryptography()
        self._ciphers: dict[str, Any] = {}
        self._hashes: dict[str, hmac.HMAC] = {}
        for key_id, source in keys.items():
            if _KEY_ID.fullmatch(key_id) is None:
                msg = f"key id {key_id!r:.80} is not allowed: use 1 to 64 of A-Z a-z 0-9 . _ -"
                raise InvalidOptionError(msg)
            secret = derive(_read_key(key_id, source))
            self._ciphers[key_id] = aead(secret[:_KEY_BYTES])
            self._hashes[key_id] = hmac.new(secret[_KEY_BYTES:], digestmod=hashlib.sha256)
        if current is not None and current not in self._ciphers:
            raise InvalidOptionError(f"current={current!r} is none of the keys")
        self.current = current

    def __repr__(self) -> str:
        return f"AesGcm(keys={sorted(self._ciphers)}, current={self.current!r})"

    def __reduce__(self) -> str:
        raise TypeError("an AesGcm holds keys: it is not to be pickled or copied")

    @staticmethod
    def new_key() -> str:
        """Return a new random key as text, for a secret store or a file."""
        return base64.b64encode(os.urandom(_KEY_BYTES)).decode()

    def seal(self, data: bytes, inner: str) -> Sealed | None:
        """Return *data* encrypted; key id and *inner* are authenticated with it."""
        if self.current is None:
            return None
        label = f"{self.name}:{self.current}"
        bound = _bound(label, inner)
        digest = self._hashes[self.current].copy()
        digest.update(len(bound).to_bytes(4) + bound + data)
        nonce = digest.digest()[:_NONCE_BYTES]
        return Sealed(label, nonce + self._ciphers[self.current].encrypt(nonce, data, bound))

    def open(self, sealed: Sealed, inner: str, limit: int) -> bytes:  # noqa: ARG002 - never grows
        """Return what was encrypted.

        Raises:
            UnknownKeyError: Its key is not at hand.
            TamperedPayloadError: It is not what was encrypted under that key.
        """
        key_id = sealed.label.partition(":")[2]
        if not key_id:
            raise TamperedPayloadError("the encrypted payload names no key")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise UnknownKeyError(key_id)
        nonce, data = sealed.data[:_NONCE_BYTES], sealed.data[_NONCE_BYTES:]
        try:
            opened: bytes = cipher.decrypt(nonce, data, _bound(sealed.label, inner))
            return opened
        except Exception:  # noqa: BLE001, S110 - InvalidTag, or ValueError for what is too short
            pass
        raise TamperedPayloadError(
            f"the payload is not what was encrypted under key {key_id!r}: it was changed, or that "
            "id has another key here"
        )


def _bound(label: str, inner: str) -> bytes:
    return b"%b %b" % (label.encode(), inner.encode())


def _read_key(key_id: str, source: KeySource) -> bytes:
    """Return the 32 bytes of a key, or say what is wrong without showing them."""
    if isinstance(source, Path):
        try:
            source = source.read_bytes()
        except OSError as error:
            msg = f"the file of key {key_id!r} cannot be read: {error.strerror}"
            raise InvalidOptionError(msg) from None
        if len(source) != _KEY_BYTES:
            source = source.decode("ascii", "replace")
    if isinstance(source, str):
        source = _key_of_text(source.strip())
    if not isinstance(source, bytes) or len(source) != _KEY_BYTES:
        msg = f"key {key_id!r} is not {_KEY_BYTES} bytes (raw, hex, base64, or a Path to them)"
        raise InvalidOptionError(msg)
    return source


def _key_of_text(text: str) -> bytes:
    try:
        if len(text) == 2 * _KEY_BYTES:
            return bytes.fromhex(text)
        standard = text.replace("-", "+").replace("_", "/")
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (ValueError, binascii.Error):
        return b""


def _cryptography() -> tuple[Any, Any]:
    """Return the cipher, and what derives 64 bytes from a key."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415
    except ImportError:
        msg = "AesGcm needs the library cryptography: pip install 'askel[crypto]'"
        raise InvalidOptionError(msg) from None

    def derive(key: bytes) -> bytes:
        return HKDF(SHA256(), 2 * _KEY_BYTES, salt=None, info=_PURPOSE).derive(key)

    return AESGCM, derive
