"""A parallel load of page and asset requests that counts every error a user would see."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter

import aiohttp

USER_AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36"

ASSETS_A_PAGE = 3

_ASSET = re.compile(r"/_nicegui/[0-9.]+/[^\"'` ?]+\.(?:js|css|mjs)")


class Load:
    """Visitors who load the page and some of its files, and go: `rate` pages a second."""

    def __init__(self, url: str, rate: float, random: random.Random) -> None:
        self._url = url
        self._rate = rate
        self._random = random
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: asyncio.Task[None] | None = None
        self._http: aiohttp.ClientSession | None = None
        self.requests = 0
        self.errors: list[tuple[float, str]] = []
        self.kinds: Counter[str] = Counter()

    async def __aenter__(self) -> Load:
        # Some connections idle longer than proxies keep them, as browsers' do; aiohttp, like browsers, asks again where
        # a used connection has ended without an answer, and nothing else.
        connector = aiohttp.TCPConnector(limit=32, keepalive_timeout=60)
        timeout = aiohttp.ClientTimeout(total=30)
        self._http = aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._running is not None
        assert self._http is not None
        self._running.cancel()
        await asyncio.gather(self._running, *self._tasks, return_exceptions=True)
        await self._http.close()

    async def _run(self) -> None:
        while True:
            task = asyncio.create_task(self._visit())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(self._random.uniform(0.5, 1.5) / self._rate)

    async def _visit(self) -> None:
        page = await self._get("/", {"Sec-Fetch-Mode": "navigate", "Accept": "text/html"})
        if page is None:
            return
        text, cookie = page
        assets = sorted(set(_ASSET.findall(text)))
        for path in self._random.sample(assets, min(ASSETS_A_PAGE, len(assets))):
            await self._get(path, {"Cookie": cookie})

    async def _get(self, path: str, headers: dict[str, str]) -> tuple[str, str] | None:
        """Ask; None and an entry in `errors` where anything but a whole answer below 400 came."""
        assert self._http is not None
        self.requests += 1
        try:
            async with self._http.get(self._url.rstrip("/") + path, headers=headers | {"User-Agent": USER_AGENT}) as r:
                body = await r.read()
                if r.status < 400:
                    cookies = "; ".join(c.partition(";")[0] for c in r.headers.getall("Set-Cookie", []))
                    return body.decode(errors="replace"), cookies
                problem = f"{r.status} {r.headers.get('X-Stickyproxy-Reason', '')}"
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            problem = f"{type(error).__name__} {error}"
        kind = "page" if path == "/" else "asset"
        self.errors.append((time.monotonic(), f"{kind}: {problem}"))
        return None
