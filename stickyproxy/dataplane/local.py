"""A data plane in this very process, as the composition root speaks to it."""

from collections.abc import Sequence

from stickyproxy.core.backends import Backend
from stickyproxy.core.news import News
from stickyproxy.core.plane import Report
from stickyproxy.core.tls import TlsMaterial
from stickyproxy.dataplane.proxy import Proxy


class LocalPlane:
    """The only data plane where nothing is shared out (`--workers 1`), and what stands in each worker."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy

    def apply(self, backends: Sequence[Backend]) -> None:
        """Put a whole new set of backends in force."""
        self.proxy.apply(backends)

    def secure(self, material: TlsMaterial) -> None:
        """Speak TLS with these certificates from now on."""
        self.proxy.secure(material)

    def order(self, identity: str, *, drain: bool) -> None:
        """Let a backend drain, or take that back."""
        (self.proxy.drains.drain if drain else self.proxy.drains.undrain)(identity)

    def hear(self, news: News) -> None:
        """Take in what somebody else knows."""
        self.proxy.hear(news)

    async def known(self) -> News:
        """Give all pages and files, for a successor."""
        return News(self.proxy.pages.known(), dict(self.proxy.files.items()))

    async def report(self, *, thorough: bool = False) -> Report:
        """Report the state of this moment."""
        return self.proxy.report(thorough=thorough)

    async def wait(self, identity: str, wait_s: float, idle_s: float | None) -> None:
        """Wait until a backend has nothing open here, for so long at the most."""
        await self.proxy.drains.wait(identity, wait_s, idle_s)

    async def leave(self, delay_s: float, timeout_s: float) -> None:
        """Serve on for a while, unready; then drain."""
        await self.proxy.leave(delay_s, timeout_s)

    async def close(self) -> None:
        """Drop every connection."""
        await self.proxy.close()
