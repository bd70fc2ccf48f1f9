"""Read pages as they pass: body readers that show their content to a `PageReader`.

Laws: what is read goes on at once; without a token it goes on untouched; with one, the content grows by the token only.
"""

import zlib
from collections.abc import Callable

from stickyproxy.core.framing import BadBodyError, BodyReader, ChunkedReader
from stickyproxy.core.nicegui import PageReader
from stickyproxy.core.request import CHUNKED

OnPage = Callable[[PageReader], None]


class WatchedReader:
    """Passes a body on as another reader does, and reads the page in it."""

    __slots__ = ("_content", "_found", "_on_page", "_page", "_reader", "done")

    def __init__(self, reader: BodyReader, length: int, page: PageReader, on_page: OnPage) -> None:
        self._reader = reader
        self._content = ChunkedReader(plain=True) if length == CHUNKED else None
        self._page = page
        self._on_page = on_page
        self._found = False
        self.done = reader.done

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Pass on and read."""
        out, taken = self._reader.feed(data)
        self.done = self._reader.done
        if not self._found:
            content = out if self._content is None else self._content.feed(data[:taken])[0]
            self._page.feed(content)
            if self._page.page:
                self._found = True
                self._on_page(self._page)
        return out, taken


class TokenReader:
    """Reads a page by `reader`, which gives bare content, and passes it on with its token.

    The content leaves chunked, or bare with `plain` (to HTTP/1.0 clients).
    """

    __slots__ = ("_on_page", "_page", "_plain", "_reader", "done")

    def __init__(self, reader: BodyReader, page: PageReader, on_page: OnPage, *, plain: bool) -> None:
        self._reader = reader
        self._page = page
        self._on_page = on_page
        self._plain = plain
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Pass on what is ready."""
        content, taken = self._reader.feed(data)
        try:
            out = self._page.feed(content) if content else b""
        except zlib.error as error:
            raise BadBodyError(f"the page cannot be decoded: {error}") from None
        if self._reader.done:
            self.done = True
            out += self._page.end()
            if self._page.page:
                self._on_page(self._page)
        if not self._plain:
            out = (b"%x\r\n%b\r\n" % (len(out), out) if out else b"") + (b"0\r\n\r\n" if self.done else b"")
        return out, taken
