"""What the page offers for download."""

import hashlib


def download_content() -> bytes:
    """Return 4 MB that do not compress and are the same in every process."""
    return b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(125_000))
