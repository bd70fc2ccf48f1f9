"""What NiceGUI says on the wire (read from 1.4.19 to 3.18), behind the few questions that a proxy asks of a framework.

Sources, all in the `nicegui` package: `nicegui.py` (routes), `client.py` (the page's response), `templates/index.html`
(the literal `query: {...}`, a Python repr in a JavaScript object), `static/nicegui.js` (the socket's address).
Other frameworks can stand beside this module: whatever reads targets and pages by these names.
"""

import re
import zlib
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Final

MARK: Final = b"/_nicegui"
"""Stands in every target that `read_route` knows; one search tells all others apart."""

PAGE_MARKER: Final = b"page"
"""The value of `X-NiceGUI-Content` on responses that hold a page."""

TOKEN_PARAMETER: Final = b"_stickyproxy"
"""Query parameter that carries a token for pages without cookies."""

_FILES: Final = b"/_nicegui/auto/"
"""Below this path a page registers files for itself: what it shows, and downloads."""

_ADDED: Final = (
    b"'%b': (addEventListener('click', (e) => { "
    b"const a = e.composedPath().find((n) => n.origin === location.origin && n.pathname?.includes('%b')); "
    b"if (a && !a.search.includes('%b=')) a.search = (a.search ? a.search + '&' : '?') + '%b=%b'; "
    b"}, true), '%b'), "
)
"""What a page gets in its `query: {...}` for its token: the socket's parameter, and that a click on a file, by which
NiceGUI starts a download, asks for it with the token."""

PATIENCE: Final = (
    b"...((() => { let s; Object.defineProperty(window, 'socket', {configurable: true, enumerable: true, "
    b"get: () => s, set(v) { s = v; let met = false; const on = v.on; "
    b"v.on = (e, h) => on.call(v, e, e !== 'connect_error' ? h : "
    b"(x) => { if (!met || 'data' in x || x.message !== 'timeout') h(x); }); "
    b"on.call(v, 'connect', () => { met = true; }); }}); })(), {}), "
)
"""What a page gets in its `query: {...}` so that it can wait for minutes: NiceGUI's page reloads itself when an attempt
to connect takes longer than 20 s (`connect_error` with "timeout" in `static/nicegui.js`), as in a network that swallows
everything. A page that has been connected tries on instead; what a server says by that word is heard as before."""

_ID = rb"[0-9A-Za-z-]{1,64}"
_SOCKET = re.compile(rb"/_nicegui_ws/[^?]*(?:\?(?:[^#&]*&)*?client_id=(%b)(?:&|\Z))?" % _ID)
_CLIENT = re.compile(rb"/_nicegui/client/(%b)/" % _ID)
_ASSET = re.compile(rb"/_nicegui/([0-9][0-9A-Za-z.+-]{0,31})/")
_TOKEN = re.compile(rb"[?&]%b=([0-9A-Za-z_-]{1,64})(?:&|\Z)" % TOKEN_PARAMETER)

# Behind the elements (JSON in a template string, in which neither a backtick nor a raw line break can stand):
_LINE_BREAK = rb"[ \t]*\r?\n[ \t]*"
_ANCHOR = re.compile(
    _LINE_BREAK.join((rb"`\), \{", rb'version: "([^"\n]{1,32})",', rb'prefix: "[^"\n]*",', rb"query: \{"))
)
_ANCHOR_BYTES = 1024
"""More than an anchor can be long, prefix included: so much of the end of a piece is searched again with the next."""

_LITERAL_BYTES = 16384
"""Longest `query: {...}` that is read; the app's own parameters stand in it."""

_PIECE = re.compile(rb"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[{}\[\]()]|[^'"{}\[\]()]+""", re.S)

_FILE = re.compile(rb"""%b[!$%%*-;=@-\[\]-_a-~]+(?=["'&<>?\\)\s])""" % _FILES)
"""A file's path where a page's elements or its HTML name it, percent-encoded as it is."""

_MOST_FILES: Final = 1000
"""So many files of one page are looked for."""

MAX_CONTENT_BYTES: Final = 64 << 20
"""Decoded bytes of a page that are searched at the most."""


class Kind(Enum):
    """What a target under NiceGUI's own paths is for."""

    SOCKET = "socket"  # a WebSocket or a poll
    CLIENT = "client"  # an upload: only the page's backend can answer
    ASSET = "asset"  # a file of one NiceGUI version


@dataclass(frozen=True, slots=True)
class Route:
    """A target of NiceGUI's own: `page` is the client id it names, `version` NiceGUI's, or empty."""

    kind: Kind
    page: bytes = b""
    version: bytes = b""


def read_route(target: bytes) -> Route | None:
    """Read a target; None where NiceGUI's own paths say nothing about the backend (`/_nicegui/auto/` among them)."""
    path, _, _ = target.partition(b"?")
    if asset := _ASSET.search(path):
        return Route(Kind.ASSET, version=asset[1])
    if client := _CLIENT.search(path):
        return Route(Kind.CLIENT, client[1])
    if b"/_nicegui_ws/" in path:
        socket = _SOCKET.search(target)
        return Route(Kind.SOCKET, (socket and socket[1]) or b"")
    return None


def is_own(target: bytes) -> bool:
    """Say whether a target's path is one of NiceGUI's own, under whatever prefix."""
    path = target.partition(b"?")[0]
    return b"/_nicegui/" in path or b"/_nicegui_ws/" in path


def is_once(target: bytes) -> bool:
    """Say whether a target may be good for one answer only: a download (`ui.download`, single use since 3.18)."""
    return _FILES in target.partition(b"?")[0]


def read_file(target: bytes) -> bytes:
    """Read the path of a file that a page registered, without the prefix below which the app lives."""
    path = target.partition(b"?")[0]
    return path[max(0, path.find(_FILES)) :]


def asks_implicitly(target: bytes) -> bool:
    """Say whether a socket's query asks for the page's handshake (since 3.6); older pages ask by an event."""
    return b"implicit_handshake=true" in target.partition(b"?")[2]


def read_token(target: bytes) -> bytes | None:
    """Read the token in a target's query; None where there is none."""
    found = _TOKEN.search(target)
    return found[1] if found else None


class PageReader:
    """Reads a page's HTML as it passes, for its client id, the version that built it, and the files it shows.

    encoding: the response's Content-Encoding in lower case. What cannot be decoded is not read, never an error: the
    bytes go their way whatever is found in them. With an `insertion` (`added`, `PATIENCE`), `feed` and `end` give the
    page back with that in its `query: {...}`, encoded as it came; without one they give nothing back. feed raises
    zlib.error where a page with an insertion turns out to be broken in the middle.
    """

    def __init__(self, encoding: bytes, insertion: bytes = b"") -> None:
        self.page = b""
        self.version = b""
        self.files: set[bytes] = set()
        self._done = False
        self._tail = b""
        self._read = 0
        self._insertion = insertion
        self._begun: bytes | None = b""  # what came before anything could be decoded: it may be something else
        self._gzip = encoding == b"gzip"
        self._decoder = zlib.decompressobj(31 if encoding == b"gzip" else 15) if encoding else None
        self._encoder = (
            zlib.compressobj(4, zlib.DEFLATED, 31 if encoding == b"gzip" else 15) if insertion and encoding else None
        )

    @staticmethod
    def can_read(encoding: bytes) -> bool:
        """Say whether pages in an encoding can be read."""
        return encoding in (b"", b"gzip", b"deflate")

    def feed(self, content: bytes) -> bytes:
        """Read a piece of the response's content (without its framing)."""
        if not self._insertion:
            if not self._done:
                self._read_only(content)
            return b""
        if self._decoder is None:
            return self._search(content)
        if self._begun is not None:
            self._begun += content
        try:
            decoded = self._inflate(content)
        except zlib.error:
            if self._begun is None:
                raise  # in the middle: nothing can be saved
            self._decoder = self._encoder = None
            self._done = True
            return self._begun
        if decoded:
            self._begun = None
        out = self._search(decoded)
        if self._encoder is None or not out:
            return b""
        return self._encoder.compress(out) + self._encoder.flush(zlib.Z_SYNC_FLUSH)

    def _inflate(self, data: bytes, limit: int = 0) -> bytes:
        """Decode a piece, of up to `limit` decoded bytes (0: of any size); gzip may have several members (RFC 1952)."""
        assert self._decoder is not None
        out = self._decoder.decompress(data, limit)
        # What follows and is no member is padding, which is to be ignored.
        while self._gzip and self._decoder.eof and (more := self._decoder.unused_data)[:1] == b"\x1f":
            self._decoder = zlib.decompressobj(31)
            out += self._decoder.decompress(more, limit)
        return out

    def _read_only(self, content: bytes) -> None:
        """Read a piece of a page that goes its way untouched, up to a bound of decoded bytes."""
        if self._decoder is not None:
            try:
                content = self._inflate(content, MAX_CONTENT_BYTES - self._read)
            except zlib.error:
                self._done = True
                return
        self._read += len(content)
        self._search(content)
        if self._read >= MAX_CONTENT_BYTES:
            self._done = True

    def end(self) -> bytes:
        """Give what was held back, at the content's end."""
        held, self._tail = self._tail if not self._done else b"", b""
        self._done = True
        if not self._insertion:
            return b""
        if self._decoder is not None and self._begun is not None:
            return self._begun  # nothing came out of it at all
        return self._encoder.compress(held) + self._encoder.flush() if self._encoder is not None else held

    def _search(self, content: bytes) -> bytes:
        """Look for the anchor and the literal behind it; give back what needs to be held no longer."""
        if self._done:
            return content
        text = self._tail + content
        if _FILES in text and len(self.files) < _MOST_FILES:
            self.files.update(found[0] for found in islice(_FILE.finditer(text), _MOST_FILES))
        anchor = _ANCHOR.search(text)
        if anchor is None:
            keep = max(0, len(text) - _ANCHOR_BYTES)
            self._tail = text[keep:]
            return text[:keep]
        page = read_client_id(text[anchor.end() :])
        if page is None and len(text) - anchor.start() < _LITERAL_BYTES:
            self._tail = text[anchor.start() :]  # the literal has not come in whole
            return text[: anchor.start()]
        self._done = True
        self.page = page or b""
        self.version = anchor[1]
        if not self._insertion:
            return b""
        return text[: anchor.end()] + self._insertion + text[anchor.end() :]


def added(token: bytes) -> bytes:
    """Give what a page gets for its token."""
    name = TOKEN_PARAMETER
    return _ADDED % (name, _FILES, name, name, token, token)


def read_client_id(literal: bytes) -> bytes | None:
    """Read the client id out of the inside of `query: {...}`; None while its end has not come in, empty if it has none.

    The literal is a Python repr: strings in either quotes, nested dicts and lists of the app's own, in which the word
    client_id may stand too.
    """
    depth = 1
    found = b""
    key = b""
    at = 0
    while matched := _PIECE.match(literal, at):
        piece = matched[0]
        at = matched.end()
        if piece in (b"{", b"[", b"("):
            depth += 1
        elif piece in (b"}", b"]", b")"):
            depth -= 1
            if depth == 0:
                return found
        elif depth == 1 and piece[0] in b"'\"":
            if key == b"client_id" and re.fullmatch(_ID, piece[1:-1]):
                found = piece[1:-1]
            key = piece[1:-1] if not key else b""
        elif depth == 1 and b"," in piece:
            key = b""
    return None
