"""Read pages as they pass: body readers that show their content to a `PageReader`.

Laws: what is read goes on at once; without a token it goes on untouched; with one, the content grows by the token only.
"""

import zlib
from collections.abc import Callable

from stickyproxy.core.framing import BadBodyError, BodyReader, ChunkedReader
from stickyproxy.core.nicegui import PageReader
from stickyproxy.core.request import CHUNKED

OnPage = Callable[[PageReader], None]


class TappedReader:
    """Passes a body on as another reader does, and shows its bare content to `see` while that `wants_more`."""

    __slots__ = ("_content", "_reader", "done", "wants_more")

    def __init__(self, reader: BodyReader, length: int) -> None:
        self._reader = reader
        self._content = ChunkedReader(plain=True) if length == CHUNKED else None
        self.wants_more = True
        self.done = reader.done

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Pass on and show."""
        out, taken = self._reader.feed(data)
        self.done = self._reader.done
        if self.wants_more:
            self.see(out if self._content is None else self._content.feed(data[:taken])[0])
        return out, taken

    def see(self, content: bytes) -> None:
        """Take a piece of the content, without its framing."""
        raise NotImplementedError


class WatchedReader(TappedReader):
    """Reads the page in a body as it passes."""

    __slots__ = ("_on_page", "_page")

    def __init__(self, reader: BodyReader, length: int, page: PageReader, on_page: OnPage) -> None:
        super().__init__(reader, length)
        self._page = page
        self._on_page = on_page

    def see(self, content: bytes) -> None:
        """Read on until the page is known."""
        self._page.feed(content)
        if self._page.page:
            self.wants_more = False
            self._on_page(self._page)


class PollReader:
    """Holds a short body until it is whole, and passes on what `read` makes of it, which is as long."""

    __slots__ = ("_held", "_read", "_reader", "done")

    def __init__(self, reader: BodyReader, read: Callable[[bytes], bytes]) -> None:
        self._reader = reader
        self._read = read
        self._held = b""
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Pass on nothing but the whole."""
        out, taken = self._reader.feed(data)
        self._held += out
        self.done = self._reader.done
        return self._read(self._held) if self.done else b"", taken


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
