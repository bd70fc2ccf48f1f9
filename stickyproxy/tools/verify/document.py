"""Read what a browser would read in a page: whether NiceGUI built it, its socket's address, its files, a login form.

Sources: NiceGUI's `templates/index.html` (the options of `createApp`), `static/nicegui.js` (what the socket is asked
with) of 1.4 to 3.18. Law: nothing here raises for what a server sent; what cannot be read is absent.
"""

import ast
import html
import json
import re
import uuid
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from stickyproxy.core.nicegui import PATIENCE, TOKEN_PARAMETER, added

_OPTIONS = re.compile(
    r"`\), \{\s*\n\s*version: \"([^\"\n]{1,32})\",\s*\n\s*prefix: \"([^\"\n]*)\",\s*\n\s*query: \{([^\n]*)\},\s*\n"
    r"(?:\s*extraHeaders: (\{[^\n]*\}),\s*\n)?(?:\s*transports: (\[[^\n]*\]),?\s*\n)?"
)
"""The options of `createApp`, behind the page's elements, in which no raw line break can stand."""

_TOKEN = re.compile(rf"'{TOKEN_PARAMETER.decode()}': \([^\n]*?, '([0-9A-Za-z_-]{{1,64}})'\), ")
_TAG = re.compile(
    r"<(?:script|link(?![^>]*\brel=[\"']?(?:canonical|alternate|next|prev|search|author|license|help|me)\b))\b[^>]*?"
    r"\b(?:src|href)=[\"']([^\"'\s]+)[\"']",
    re.IGNORECASE,
)
"""Files, and no other pages: loading one of those could make the app build it."""
_IMPORT = re.compile(r"@import url\([\"']([^\"']+)[\"']\)|\bfrom [\"'](/[^\"']+)[\"']|\bimport\([\"'](/[^\"']+)[\"']\)")
_IMPORT_MAP = re.compile(r"<script type=\"importmap\">(.*?)</script>", re.DOTALL)
_LINK = re.compile(r"<(?:a|script|link|img|form|iframe)\b[^>]*?\b(?:src|href|action)=[\"'](http://[^\"'\s]+)", re.I)
_PASSWORD = re.compile(r"<input\b[^>]*\btype=[\"']?password", re.IGNORECASE)
_NICEGUI_PASSWORD = re.compile(r"(?:&quot;|\")type(?:&quot;|\"): ?(?:&quot;|\")password")
_LOGIN_PATH = re.compile(r"/(?:log-?in|sign-?in|sso|saml2?|oauth2?|auth|authorize|openid[^/]*)(?:/|\Z)", re.IGNORECASE)

MOST_FILES: Final = 80
"""So many files of a page are looked at; a page of NiceGUI's has some 30."""


@dataclass(slots=True)
class NiceguiPage:
    """One load of a page: all that its script is given to open the socket, and what it has heard since."""

    version: str
    prefix: str
    query: dict[str, Any]
    """What the socket's address carries; the client id in it is a secret."""
    extra_headers: dict[str, str] = field(default_factory=dict)
    transports: tuple[str, ...] = ("websocket", "polling")
    next_message_id: int = 0
    document_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    tab_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def asks_implicitly(self) -> bool:
        """Say whether the page asks for its handshake in the socket's query (since 3.6)."""
        return bool(self.query.get("implicit_handshake"))

    def socket_query(self) -> dict[str, Any]:
        """Give what the page tells about itself with each socket."""
        own = {"document_id": self.document_id, "tab_id": self.tab_id, "old_tab_id": ""}
        if "next_message_id" in self.query:
            own["next_message_id"] = str(self.next_message_id)
        return self.query | own

    def socket_target(self, transport: str, sid: str = "") -> str:
        """Give the socket's path and query below the prefix, as socket.io's client writes them."""
        query = self.socket_query() | {"EIO": "4", "transport": transport}
        if sid:
            query["sid"] = sid
        words = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in query.items()}
        return f"/_nicegui_ws/socket.io/?{urlencode(words)}"


def parse_nicegui(text: str) -> NiceguiPage | None:
    """Read a page that NiceGUI built; None where it built none, or the page cannot be read."""
    found = None
    for found in _OPTIONS.finditer(text):  # noqa: B007  the page's own is the last one
        pass
    if found is None:
        return None
    literal = found[3].replace(PATIENCE.decode(), "")
    if (token := _TOKEN.search(literal)) and added(token[1].encode()).decode() == token[0]:
        literal = literal.replace(token[0], f"'{TOKEN_PARAMETER.decode()}': '{token[1]}', ")
    try:
        query = ast.literal_eval(f"{{{literal}}}")
        headers = ast.literal_eval(found[4] or "{}")
        transports = ast.literal_eval(found[5] or "['websocket', 'polling']")
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(query, dict) or not query.get("client_id"):
        return None
    first = query.get("next_message_id")
    return NiceguiPage(
        version=found[1],
        prefix=html.unescape(found[2]).rstrip("/"),
        query={str(key): value for key, value in query.items()},
        extra_headers={str(k): str(v) for k, v in headers.items()} if isinstance(headers, dict) else {},
        transports=tuple(str(name) for name in transports) if isinstance(transports, list) else ("websocket",),
        next_message_id=first if isinstance(first, int) else 0,
    )


def find_files(text: str) -> list[str]:
    """Find the addresses of the files that a browser loads for a page, as they are written; `MOST_FILES` at most."""
    found = [html.unescape(match[1]) for match in _TAG.finditer(text)]
    found += [next(filter(None, match.groups())) for match in _IMPORT.finditer(text)]
    for block in _IMPORT_MAP.finditer(text):
        try:
            imports = json.loads(block[1])["imports"].values()
            found += [address for address in imports if isinstance(address, str) and not address.endswith("/")]
        except (ValueError, KeyError, AttributeError, TypeError):
            continue
    wanted = [address for address in dict.fromkeys(found) if not address.startswith(("data:", "blob:", "#"))]
    return wanted[:MOST_FILES]


def find_plain_links(text: str, host: str) -> list[str]:
    """Find absolute http:// addresses of the page's own host, which a page that came by https must not have."""
    found = (html.unescape(match[1]) for match in _LINK.finditer(text))
    return [link for link in dict.fromkeys(found) if link.partition("//")[2].split("/")[0].split(":")[0] == host]


def sign_of_login(*, status: int, path: str, other_host: str, challenge: str, text: str, nicegui: bool) -> str:
    """Say by what a login shows that stands in the way; empty where none does.

    other_host: the host to which we were redirected, if it is not the one asked; challenge: WWW-Authenticate.
    """
    if status == 401:
        return f"answered 401 ({challenge.split(' ')[0] or 'no scheme named'})"
    if status == 407:
        return "answered 407: a proxy on the way wants a password"
    if status == 403:
        return "answered 403"
    if nicegui:
        return ""
    if other_host:
        return f"redirected to {other_host}"
    if _PASSWORD.search(text):
        return "the page asks for a password"
    if _LOGIN_PATH.search(path):
        return f"redirected to {path}"
    return ""


def asks_password(text: str, path: str) -> bool:
    """Say whether a page that NiceGUI built looks like a login."""
    return bool(_LOGIN_PATH.search(path) or _PASSWORD.search(text) or _NICEGUI_PASSWORD.search(text))
