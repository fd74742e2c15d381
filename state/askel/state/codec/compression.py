"""Zstd: payloads above a size are compressed."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

from askel.errors import InvalidOptionError, PayloadError, TamperedPayloadError
from askel.sizes import Size, size_bytes
from askel.state.codec.envelopes import Sealed

_MAX_LEVEL = 22


class Zstd:
    """Compresses payloads of at least *min_size* where that makes them smaller.

    The same library version and level give the same bytes.
    """

    name = "zstd"

    def __init__(self, min_size: Size = "1KiB", level: int = 3) -> None:
        """Choose from which size, and how hard, to compress.

        Raises:
            InvalidOptionError: An argument makes no sense, or the library ``zstandard`` is not
                installed (extra ``zstd``).
        """
        self.min_size = size_bytes(min_size)
        if not 1 <= level <= _MAX_LEVEL:
            raise InvalidOptionError(f"level={level}: give 1 to {_MAX_LEVEL}")
        self.level = level
        self._library = _zstandard()
        self._own = threading.local()  # a compressor serves one thread at a time

    def __repr__(self) -> str:
        return f"Zstd(min_size={self.min_size}, level={self.level})"

    def seal(self, data: bytes, inner: str) -> Sealed | None:  # noqa: ARG002 - nothing to bind
        """Return *data* compressed; None where base64 would eat up what that saves."""
        if len(data) < self.min_size:
            return None
        compressor = getattr(self._own, "compressor", None)
        if compressor is None:
            compressor = self._library.ZstdCompressor(level=self.level)
            self._own.compressor = compressor
        compressed: bytes = compressor.compress(data)
        return Sealed(self.name, compressed) if len(compressed) * 4 < len(data) * 3 else None

    def open(self, sealed: Sealed, inner: str, limit: int) -> bytes:  # noqa: ARG002 - see `seal`
        """Return what was compressed; its size is known, and bounded, before it is unpacked."""
        library = self._library
        size = -1
        with suppress(library.ZstdError):
            size = library.frame_content_size(sealed.data)
        if size < 0:
            raise TamperedPayloadError("the compressed payload is damaged")
        if size > limit:
            raise PayloadError(f"{size} bytes of JSON are more than the limit of {limit}")
        decompressor = getattr(self._own, "decompressor", None)
        if decompressor is None:
            decompressor = self._own.decompressor = library.ZstdDecompressor()
        opened: bytes = decompressor.decompress(
            sealed.data, max_output_size=limit, allow_extra_data=False
        )
        return opened


def _zstandard() -> Any:
    try:
        import zstandard  # noqa: PLC0415 - only who compresses needs it
    except ImportError:
        msg = "Zstd needs the library zstandard: pip install 'askel[zstd]'"
        raise InvalidOptionError(msg) from None
    return zstandard
