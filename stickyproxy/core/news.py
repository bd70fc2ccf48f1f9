"""What one data plane has learned that the others should know: pages, files, refusals, and what its backends carry.

Laws: news can be added up and told in any order but that of one page's moves; whoever gets none decides by the cookie
or the token, as every replica of the proxy does.
"""

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

from stickyproxy.core.absences import Absence


class PageNews(NamedTuple):
    """Where a page lives (an empty identity: it shall leave), who loaded it, and the NiceGUI that built it.

    worked: a backend has accepted a socket of it.
    """

    identity: str
    visitor: Hashable = None
    version: bytes = b""
    worked: bool = False


@dataclass(slots=True)
class News:
    """What has changed since the last news.

    `tunnels` are whole numbers by identity and not changes: a worker tells its own, and hears the sum of all others'.
    `left`: pages whose last socket has ended. `came`: those of them that are back.
    """

    pages: dict[bytes, PageNews] = field(default_factory=dict)
    files: dict[bytes, str] = field(default_factory=dict)
    refused: list[Hashable] = field(default_factory=list)
    arrivals: Counter[str] = field(default_factory=Counter)
    tunnels: dict[str, int] = field(default_factory=dict)
    left: dict[bytes, Absence] = field(default_factory=dict)
    came: list[bytes] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Say whether there is anything to tell."""
        return bool(self.pages or self.files or self.refused or self.arrivals or self.tunnels or self.left or self.came)
