"""Compress bytes. The same bytes always give the same compressed bytes.

Python's `gzip` and Pillow call the zlib of the system, and systems have different ones: zlib-ng of Fedora compresses to other
bytes than zlib of Debian. pyarrow brings a zlib of its own, which its version pins.
"""

import struct
import zlib

import numpy as np
import pyarrow

_HEADER, _TRAILER = 10, 8  # bytes of gzip around the compressed data. pyarrow writes neither a time nor a name


def gzipped(data: bytes) -> bytes:
    """Return the content of a .gz file with `data`."""
    return pyarrow.compress(data, codec="gzip", asbytes=True)


def png(pixels: np.ndarray) -> bytes:
    """Return the content of a PNG file with an image. Shape of `pixels`: (height, width, 3), uint8."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + width * 3), dtype=np.uint8)  # each row begins with its filter, 0 for none
    rows[:, 1:] = pixels.reshape(height, -1)
    data = rows.tobytes()
    deflated = b"\x78\xda" + gzipped(data)[_HEADER:-_TRAILER] + struct.pack(">I", zlib.adler32(data))  # as zlib frames it
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB, not interlaced
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", deflated) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
