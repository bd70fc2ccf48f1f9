"""Both ends of a NiceGUI page's socket by hand: a browser that goes and comes as a test says, and the app's side."""

import json
from dataclasses import dataclass, replace

from stickyproxy.core.messages import accept_key, read_text, unmask
from stickyproxy.core.settings import ParkingSettings, Settings
from stickyproxy.dataplane.parkable import ParkableTunnel
from stickyproxy.dataplane.parking import Parking
from tests.fakes.websocket import KEY, client, close, frame, server

from .harness import QUICK, Message, Peer, RawBackend, Running, eventually, request

ENGINE_ID, SOCKET_ID = "engineengineengineen", "socketsocketsocketso"
OPENED = f'0{{"sid":"{ENGINE_ID}","upgrades":[],"pingTimeout":2000,"pingInterval":4000,"maxPayload":1000000}}'.encode()
CONNECTED = f'40{{"sid":"{SOCKET_ID}"}}'.encode()
REOPENED = OPENED.replace(ENGINE_ID.encode(), b"anotheranotheranothe")
RECONNECTED = CONNECTED.replace(SOCKET_ID.encode(), b"anothersocketanother")
DEFLATE = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
SEC_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
SEC_ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""RFC 6455 section 1.3."""

PARKING = Settings(times=QUICK, parking=ParkingSettings(park_s=300.0))


def parking(**changed: float) -> Settings:
    """Give settings with parking, changed."""
    return replace(PARKING, parking=replace(PARKING.parking, **changed))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Name:
    """Whose page a socket is: `implicit`, as from NiceGUI 3.6 on, says it in the query, older ones by an event."""

    page: str = "0a1b"
    document: str = "d-1"
    tab: str = "t-1"
    implicit: bool = True
    numbered: bool = True
    """It numbers what it gets, as from NiceGUI 2 on."""

    def target(self, transport: str = "websocket") -> str:
        """Build the socket's target."""
        query = f"client_id={self.page}"
        if self.numbered:
            query += "&next_message_id=0"
        if self.implicit:
            query += f"&implicit_handshake=true&document_id={self.document}&tab_id={self.tab}&old_tab_id=null"
        return f"/_nicegui_ws/socket.io/?{query}&EIO=4&transport={transport}"

    def ask(self, *lines: str, extensions: str = "", version: str = "13", key: str = SEC_KEY) -> bytes:
        """Build the request that opens the socket."""
        upgrade = ["Connection: Upgrade", "Upgrade: websocket"]
        upgrade += [f"Sec-WebSocket-Version: {version}"] if version else []
        upgrade += [f"Sec-WebSocket-Key: {key}"] if key else []
        upgrade += [f"Sec-WebSocket-Extensions: {extensions}"] if extensions else []
        return request(f"GET {self.target()} HTTP/1.1", *upgrade, *lines)

    def handshake(self, number: int, following: int = 0) -> bytes:
        """Build the event by which older pages say who they are; following: the message to begin with."""
        said = {"client_id": self.page, "document_id": self.document, "tab_id": self.tab, "next_message_id": following}
        return f"42{number}".encode() + json.dumps(["handshake", said], separators=(",", ":")).encode()


def switch(extensions: str = "", accept: str = SEC_ACCEPT) -> bytes:
    """Build the app's answer to a request that opens a socket."""
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Accept: {accept}"]
    lines += [f"Sec-WebSocket-Extensions: {extensions}"] if extensions else []
    return "\r\n".join([*lines, "", ""]).encode()


def update(number: int, more: str = "") -> bytes:
    """Build a packet of the app's outbox, which puts the number in last."""
    return f'42["update",{{"text":"{more}","_id":{number}}}]'.encode()


def click(number: int) -> bytes:
    """Build what a browser tells the app."""
    return f'42["event",{{"id":{number}}}]'.encode()


class End:
    """One end of a page's socket, which reads whole frames."""

    def __init__(self, peer: Peer, *, masks: bool, compressed: bool = False) -> None:
        self.peer = peer
        self.masks = masks
        """It is the browser's."""
        self.compressed = compressed

    def say(self, *texts: bytes) -> None:
        """Send messages."""
        build = client if self.masks else server
        self.peer.send(b"".join(build(text, compressed=self.compressed) for text in texts))

    def frame(self, payload: bytes, opcode: int, *, final: bool = True) -> bytes:
        """Build a frame of this end's."""
        return frame(payload, opcode, key=KEY if self.masks else None, final=final)

    def leaves(self) -> None:
        """End the socket on purpose, as an app does that disconnects a page, or a page that is done."""
        self.say(b"41")
        self.peer.close()

    def close_frame(self, code: int | None = None) -> None:
        """Send a Close frame."""
        self.peer.send(close(code, key=KEY if self.masks else None))

    async def read(self) -> bytes:
        """Read a frame."""
        head = await self.peer.exactly(2)
        length = head[1] & 0x7F
        if length >= 126:
            more = await self.peer.exactly(2 if length == 126 else 8)
            head, length = head + more, int.from_bytes(more, "big")
        return head + await self.peer.exactly(length + (4 if head[1] & 0x80 else 0))

    async def hear(self) -> bytes:
        """Read a text message of one frame."""
        data = await self.read()
        text = read_text(data, 64 << 20)
        assert text is not None, f"a text message, not {data[:40]!r}"
        return text

    async def hears(self, *texts: bytes) -> None:
        """Read these very messages."""
        for text in texts:
            assert await self.hear() == text

    async def catches_up(self, *texts: bytes) -> None:
        """Read these very messages, and answer the heartbeats that stand between them."""
        for text in texts:
            while (heard := await self.hear()) == b"2":
                self.say(b"3")
            assert heard == text

    async def hear_control(self) -> tuple[int, bytes]:
        """Read a control frame: its first byte and what it holds."""
        data = await self.read()
        payload = data[2:]
        return data[0], unmask(payload[4:], payload[:4]) if data[1] & 0x80 else payload


@dataclass
class Page:
    """An open page: its browser, and its app."""

    running: Running
    backend: RawBackend
    name: Name
    browser: End
    app: End
    head: Message
    """The answer to the browser."""
    asked: Message
    """What the app was asked."""

    @property
    def parking(self) -> Parking:
        """Give the proxy's parking."""
        found = self.running.proxy.parking
        assert found is not None
        return found

    @property
    def tunnel(self) -> ParkableTunnel:
        """Give the page's tunnel, which must be the only one."""
        (tunnel,) = self.running.proxy.tunnels
        assert isinstance(tunnel, ParkableTunnel)
        return tunnel

    async def parked(self, count: int = 1) -> None:
        """Wait until so many pages are parked, their browsers' connections gone."""
        parking = self.parking
        await eventually(
            lambda: len(parking.away) == count and all(tunnel.departed for tunnel in parking.away), f"{count} parked"
        )

    async def away(self) -> None:
        """Wait until the browser is found to be away, though its connection may be there."""
        await eventually(lambda: self.parking.away, "the browser is found to be away")

    async def released(self, reason: str, count: int = 1) -> None:
        """Wait until pages were let go for a reason."""
        releases = self.running.proxy.counters.parked_releases
        await eventually(lambda: releases[reason] == count, f"let go: {reason}")
        assert sum(releases.values()) == count
        self.settled()

    def settled(self) -> None:
        """See that the books agree: who was found away is back, let go, or still away."""
        counters = self.running.proxy.counters
        gone = sum(counters.parked_returns.values()) + sum(counters.parked_releases.values())
        assert counters.parked == gone + len(self.parking.away)

    async def back(
        self, *lines: str, name: Name | None = None, extensions: str = "", said: tuple[bytes, ...] = ()
    ) -> End:
        """Come back to the parked page as a browser does; said: what the page emits first."""
        name = name or self.name
        peer = await self.running.client()
        peer.send(name.ask(*lines, extensions=extensions))
        head = await peer.head()
        assert head.status == 101
        assert head.get("sec-websocket-accept") == SEC_ACCEPT
        browser = End(peer, masks=True, compressed=bool(extensions))
        opened = await browser.hear()
        assert opened != OPENED
        assert len(opened) == len(OPENED)
        browser.say(b"40")
        assert (await browser.hear()).startswith(b'40{"sid":"')
        browser.say(*said)
        if not name.implicit:
            browser.say(name.handshake(1))
            await browser.hears(b"431[true]")
        return browser

    async def asked_again(self) -> tuple[Message, End]:
        """Wait until the app is asked for another socket; give the request, and the connection it came by."""
        peer = await self.backend.accepted()
        return await peer.head(), End(peer, masks=False, compressed=self.app.compressed)

    def accept(self, asked: Message) -> None:
        """Accept the other socket."""
        key = asked.get("sec-websocket-key") or ""
        self.app.peer.send(switch(DEFLATE if self.app.compressed else "", accept_key(key.encode()).decode()))
        self.app.say(REOPENED)

    async def reopened(self, following: int, *texts: bytes) -> Message:
        """Give the page another socket, which is asked for from the message `following` on, and say something there."""
        asked, self.app = await self.asked_again()
        self.accept(asked)
        await self.app.hears(b"40")
        self.app.say(RECONNECTED)
        if not self.name.implicit:
            await self.app.hears(self.name.handshake(0, following))
            self.app.say(b"430[true]")
        self.app.say(*texts)
        kept = self.running.proxy.counters.parked_reopened
        await eventually(lambda: not self.tunnel.reopens, "the outcome is known")
        assert kept["failed"] == 0
        return asked

    async def ends(self) -> None:
        """End both sides, and see that nothing is left."""
        await self.backend.stop_listening()
        self.browser.peer.close()
        self.app.peer.close()
        await self.running.quiet()
        self.empty()

    def empty(self) -> None:
        """See that nothing is kept of any page."""
        parking = self.parking
        self.settled()
        assert (parking.kept_bytes, parking.away, parking._pages, parking._tabs) == (0, {}, {}, {})


@dataclass(frozen=True)
class Opened:
    """A socket that a backend has accepted by HTTP, and on which nothing has been said."""

    browser: End
    app: End
    head: Message
    """The answer to the browser."""
    asked: Message
    """What the app was asked."""

    async def connect(self) -> None:
        """Open Engine.IO's session, and Socket.IO's in it."""
        self.app.say(OPENED)
        await self.browser.hears(OPENED)
        self.browser.say(b"40")
        await self.app.hears(b"40")
        self.app.say(CONNECTED)
        await self.browser.hears(CONNECTED)

    async def ends(self) -> None:
        """Let the browser vanish, and the app end when it hears of that."""
        self.browser.peer.reset()
        await self.app.peer.gone()
        self.app.peer.close()


async def open_socket(
    running: Running, backend: RawBackend, ask: bytes, *, agreed: str = "", behind: bytes = b"", receive_buffer: int = 0
) -> Opened:
    """Open a socket; ask: the request, agreed: extensions, behind: what the app sends with its answer."""
    peer = await running.client(receive_buffer=receive_buffer, limit=receive_buffer or 1 << 17)
    peer.send(ask)
    upstream = await backend.accepted()
    asked = await upstream.head()
    upstream.send(switch(agreed) + behind)
    head = await peer.head()
    assert head.status == 101
    compressed = bool(agreed)
    return Opened(
        End(peer, masks=True, compressed=compressed), End(upstream, masks=False, compressed=compressed), head, asked
    )


async def open_page(
    running: Running, backend: RawBackend, name: Name = Name(), *lines: str, offer: str = "", agreed: str = "",
    receive_buffer: int = 0,
) -> Page:  # fmt: skip
    """Open a page's socket up to where its app has accepted it; offer, agreed: extensions."""
    ask = name.ask(*(lines or (running.cookie(backend),)), extensions=offer)
    opened = await open_socket(running, backend, ask, agreed=agreed, receive_buffer=receive_buffer)
    await opened.connect()
    browser, app = opened.browser, opened.app
    if not name.implicit:
        browser.say(name.handshake(0))
        await app.hears(name.handshake(0))
        app.say(b"430[true]")
        await browser.hears(b"430[true]")
    return Page(running, backend, name, browser, app, opened.head, opened.asked)


async def beat(page: Page, browser: End | None = None) -> None:
    """Let a heartbeat pass."""
    page.app.say(b"2")
    await (browser or page.browser).hears(b"2")
    (browser or page.browser).say(b"3")
    await page.app.hears(b"3")
