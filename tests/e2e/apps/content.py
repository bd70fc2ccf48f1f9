"""What the pages show and offer for download."""

import base64
import hashlib
import io
import wave


def download_content() -> bytes:
    """Return 4 MB that do not compress and are the same in every process."""
    return b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(125_000))


def picture() -> bytes:
    """Return a PNG of one pixel."""
    return base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
    )


def tone() -> bytes:
    """Return a WAV of a tenth of a second."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 1, 8000, 0, "NONE", ""))
        file.writeframes(bytes(range(0, 256, 2)) * 6)
    return buffer.getvalue()
