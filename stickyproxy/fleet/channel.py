"""Messages between the supervisor and a worker, over a pair of sockets that only the two of them hold.

Laws: every message has its length before it; a call is answered once, or fails with ConnectionError at the end of the
channel. Pickle is safe here: both ends are one program of one version, and nobody else can reach the sockets.
"""

import asyncio
import pickle
import struct
from collections.abc import Callable
from typing import Any, cast

_LENGTH = struct.Struct("!I")


class Channel(asyncio.Protocol):
    """One end; `hears` takes the name and the arguments of each message that is no answer.

    ended: called once, when the other end is gone.
    """

    def __init__(self, hears: Callable[..., None], ended: Callable[[], None]) -> None:
        self._hears = hears
        self._ended = ended
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._last_call = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def send(self, name: str, *arguments: Any) -> None:
        """Send a message; nothing happens where the channel has ended."""
        if self._transport is not None and not self._transport.is_closing():
            body = pickle.dumps((name, arguments), pickle.HIGHEST_PROTOCOL)
            self._transport.write(_LENGTH.pack(len(body)) + body)

    async def call(self, name: str, *arguments: Any, timeout_s: float | None = None) -> Any:
        """Send a call and wait for its answer; TimeoutError or ConnectionError where none comes."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError("the worker has ended")
        self._last_call += 1
        number = self._last_call
        answer = self._calls[number] = asyncio.get_running_loop().create_future()
        try:
            self.send("call", number, name, *arguments)
            async with asyncio.timeout(timeout_s):
                return await answer
        finally:
            del self._calls[number]

    def answer(self, number: int, value: Any) -> None:
        """Answer a call."""
        self.send("answer", number, value)

    def data_received(self, data: bytes) -> None:
        """Take in the messages that are whole."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(buffer)[0]
            if len(buffer) < end:
                return
            name, arguments = pickle.loads(buffer[_LENGTH.size : end])  # noqa: S301
            del buffer[:end]
            if name == "answer":
                number, value = arguments
                if (answer := self._calls.get(number)) is not None and not answer.done():
                    answer.set_result(value)
            else:
                self._hears(name, *arguments)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what waits."""
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(ConnectionError("the worker has ended"))
        self._ended()

    def close_when_sent(self) -> None:
        """End the channel when the other end has taken all."""
        if self._transport is not None:
            self._transport.close()

    def close(self) -> None:
        """End the channel at once; idempotent."""
        if self._transport is not None:
            self._transport.abort()
