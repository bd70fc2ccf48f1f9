"""What answers to single requests show: where the socket is, files, redirects, uploads, a streamed answer, probers."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import urlsplit

from stickyproxy.tools.verify.checks_idle import SOCKET_PATH
from stickyproxy.tools.verify.document import find_files, parse_nicegui
from stickyproxy.tools.verify.packets import parse_open, split_payload
from stickyproxy.tools.verify.seen import File, Prefix, Probe, Redirect, Seen, Stream, Upload
from stickyproxy.tools.verify.visitors import Budget, Visitor
from stickyproxy.tools.verify.web import ASKING_ERRORS, Answer, Web, absolute, origin_of, why, without_query

PROBERS: Final = ("kube-probe/1.34", "GoogleHC/1.0", "ELB-HealthChecker/2.0")

FILES_AT_ONCE: Final = 6
"""As browsers do for one host."""

ASK_AGAIN: Final = 6
"""So often a file that was answered with an error is asked for again: of two processes one has it, with 1 - 1/64."""

STREAM_S: Final = 8.0
"""So long a streamed answer is watched."""

HOLD_S: Final = 1.5
"""So long a body is held back, while the app's answer to its head may come."""

_LASTING = re.compile(r"immutable|(?:max-age|s-maxage)=(?:[1-9][0-9]{4,}|3[6-9][0-9]{2}|[4-9][0-9]{3})", re.IGNORECASE)

UPLOADS: Final = 3
"""So often an upload is tried that breaks: the app refuses it early, which may reach nginx as an end (502)."""

PIECE: Final = b"\0" * (1 << 16)


async def find_prefix(web: Web, page_url: str, told: str) -> Prefix:
    """Find below which path NiceGUI's socket answers: where the page says, or else below a part of its own address."""
    origin = origin_of(page_url)

    async def answer_at(prefix: str) -> str:
        answer = await web.ask(f"{origin}{prefix}{SOCKET_PATH}polling")
        if any(map(parse_open, split_payload(answer.text))):
            return ""
        return str(answer.status or answer.problem)

    told_answer = await answer_at(told)
    if not told_answer:
        return Prefix(told, told, "")
    parts = urlsplit(page_url).path.strip("/").split("/")
    for count in range(len(parts), -1, -1):
        prefix = "".join(f"/{part}" for part in parts[:count] if part)
        if prefix != told and not await answer_at(prefix):
            return Prefix(told, prefix, told_answer)
    return Prefix(told, None, told_answer)


async def check_files(seen: Seen, visitor: Visitor, prefix: Prefix) -> None:
    """Load the files of a page; those that fail again, to see whether another process has them.

    Right after the first page was built: a replica that has built none yet lacks files that only pages bring in.
    """
    assert visitor.answer is not None
    page_url = visitor.answer.url
    origin = origin_of(page_url)
    mended = prefix.works if prefix.works not in (None, prefix.told) else None
    addresses = []
    for address in find_files(visitor.answer.text):
        url = absolute(page_url, address)
        if url is None:
            continue
        if mended is not None and urlsplit(url).path.startswith(f"{prefix.told}/_nicegui"):
            url = origin + mended + url.removeprefix(origin).removeprefix(prefix.told)
        if origin_of(url) == origin:
            addresses.append(url)
    gate = asyncio.Semaphore(FILES_AT_ONCE)

    async def ask(url: str) -> Answer:
        async with gate:
            return await visitor.web.ask(url, step="file")

    answers = await asyncio.gather(*map(ask, addresses))
    seen.files_asked = len(addresses)
    for url, answer in zip(addresses, answers, strict=True):
        if 400 <= answer.status < 500:
            all_answers = [answer, *[await ask(url) for _ in range(ASK_AGAIN)]]
            path = urlsplit(url).path
            seen.files.append(
                File(
                    path,
                    tuple(a.status for a in all_answers if a.status),
                    own="/_nicegui/" in path and "/_nicegui/auto/" not in path,
                    immutable=any(_lasts(a) for a in all_answers if a.status >= 400),
                )
            )


def _lasts(answer: Answer) -> bool:
    return bool(_LASTING.search(answer.headers.get("Cache-Control", "")))


async def check_redirect(seen: Seen, web: Web, base: str) -> None:
    """See where the app redirects to by itself: Starlette adds the slash to a mount's path (`redirect_slashes`)."""
    source = f"{base}/_nicegui_ws"
    answer = await web.ask(source)
    if answer.status:
        seen.redirect = Redirect(source, answer.location and without_query(answer.location))


async def check_probes(seen: Seen, web: Web, url: str, budget: Budget) -> list[Answer]:
    """Ask as health probers do; give the answers that hold pages, for them to be closed."""
    pages = []
    for agent in PROBERS:
        if not budget.take():
            break
        answer = await web.ask(url, headers={"User-Agent": agent})
        is_page = answer.status == 200 and parse_nicegui(answer.text) is not None
        seen.probes.append(Probe(agent, answer.status, is_page))
        if is_page:
            pages.append(answer)
            break  # one page is proof enough
        budget.opened -= 1
    return pages


def _static(base: str, version: str) -> str:
    """Give an address that answers a POST by its head alone: 405, from Starlette's StaticFiles."""
    return f"{base}/_nicegui/{version}/static/nicegui.js"


async def check_request_buffering(seen: Seen, web: Web, base: str, version: str) -> None:
    """See whether an answer that needs no body comes before the body has been sent."""
    sent = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"\0"
        await asyncio.sleep(HOLD_S)
        sent.set()
        yield b"\0" * 4095

    try:
        async with (
            asyncio.timeout(web.options.timeout_s),
            web.asked(
                _static(base, version), method="POST", data=body(),
                headers={"Content-Length": "4096", "Content-Type": "application/octet-stream"},
            ) as response,
        ):  # fmt: skip
            if response.status == 405:
                seen.whole_uploads = sent.is_set()
    except ASKING_ERRORS:
        return  # not seen: the app closed, or something on the way refuses such a request


async def check_upload(seen: Seen, web: Web, base: str, version: str) -> None:
    """Send a body of the size asked for to an address that takes none; where it is refused, find the limit.

    No handler of the app's is called: NiceGUI's files answer every POST with 405, and limits stand before the app.
    """
    size = web.options.upload_bytes
    for _ in range(UPLOADS):
        status, problem = await _send(web, _static(base, version), size, size)
        if 0 < status < 500:
            break
    passes = refused = 0
    if status == 413:
        sizes = [1 << power for power in range(16, size.bit_length())]
        sizes = [s for s in sizes if s < size]
        answers = await asyncio.gather(*(_send(web, _static(base, version), s, 1, limit_s=2.0) for s in sizes))
        passes = max((s for s, (code, _) in zip(sizes, answers, strict=True) if code != 413), default=0)
        refused = min((s for s, (code, _) in zip(sizes, answers, strict=True) if code == 413), default=size)
    seen.upload = Upload(size, status, passes, refused, problem)


async def _send(web: Web, url: str, declared: int, sent: int, limit_s: float = 0.0) -> tuple[int, str]:
    """Declare a length and send so much of it; give the status, or 0 and why none came."""

    async def body() -> AsyncIterator[bytes]:
        left = sent
        while left > 0:
            yield PIECE[:left]
            left -= len(PIECE)
        if sent < declared:
            await asyncio.sleep(limit_s * 2)

    headers = {"Content-Length": str(declared), "Content-Type": "application/octet-stream"}
    patience_s = limit_s or web.options.timeout_s + declared / 200_000  # 1.6 Mbit/s at the least
    try:
        async with (
            asyncio.timeout(patience_s),
            web.asked(url, method="POST", data=body(), headers=headers) as response,
        ):
            return response.status, ""
    except ASKING_ERRORS as error:
        return 0, why(error)


async def check_stream(seen: Seen, web: Web, url: str) -> None:
    """Watch when the pieces of a streamed answer arrive."""
    clock = web.clock
    began = clock.now()
    pieces: list[float] = []
    status, ended = 0, False
    try:
        async with asyncio.timeout(STREAM_S), web.asked(url, headers={"Accept": "text/event-stream, */*"}) as response:
            status = response.status
            async for _ in response.content.iter_any():
                pieces.append(clock.now() - began)
            ended = True
    except ASKING_ERRORS:
        ended = False
    seen.stream = Stream(status, tuple(pieces), ended)
