"""WebSocket frames built by hand (RFC 6455 section 5.2, RFC 7692 section 7.2.1): a test says which bytes pass."""

import struct
import zlib
from typing import Final

TEXT: Final = 0x1
BINARY: Final = 0x2
CONTINUATION: Final = 0x0
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

KEY: Final = b"\x11\x22\x33\x44"


def mask(payload: bytes, key: bytes) -> bytes:
    """Mask byte by byte, as the RFC writes it down."""
    return bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def frame(
    payload: bytes = b"", opcode: int = TEXT, *, key: bytes | None = None, final: bool = True, compressed: bool = False
) -> bytes:
    """Build a frame; key: a client's; compressed: what `deflated` gave."""
    size, masked = len(payload), 0x80 if key is not None else 0
    first = (0x80 if final else 0) | (0x40 if compressed else 0) | opcode
    if size < 126:
        head = bytes((first, masked | size))
    elif size < 1 << 16:
        head = bytes((first, masked | 126)) + struct.pack("!H", size)
    else:
        head = bytes((first, masked | 127)) + struct.pack("!Q", size)
    return head + (key + mask(payload, key) if key is not None else payload)


def deflated(text: bytes, *, level: int = 6, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    """Compress a message by itself, without the end that every message has; level 0 gives stored blocks."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15, 8, strategy)
    whole = compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert whole.endswith(b"\x00\x00\xff\xff")
    return whole[:-4]


def server(text: bytes, *, compressed: bool = False) -> bytes:
    """Build a server's text message."""
    return frame(deflated(text) if compressed else text, compressed=compressed)


def client(text: bytes, *, compressed: bool = False, key: bytes = KEY) -> bytes:
    """Build a client's text message."""
    return frame(deflated(text) if compressed else text, key=key, compressed=compressed)


def close(code: int | None = None, *, key: bytes | None = None) -> bytes:
    """Build a Close frame, with a status code or with none."""
    return frame(b"" if code is None else struct.pack("!H", code), CLOSE, key=key)
