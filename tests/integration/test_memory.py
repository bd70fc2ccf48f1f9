"""The size of what flows through does not matter: memory stays where it was."""

import asyncio
import re
import socket
from pathlib import Path

import pytest

from stickyproxy.core.values import Address

from .command import Command, command
from .harness import Stage, hello, request, response, soon

GB = 1 << 30
MB = 1 << 20
BLOCK = memoryview(bytes(MB))
GROWTH = 30 * MB
TIME_S = 60.0


def peak(running: Command) -> int:
    """Give the highest resident size of the proxy (bytes) since it was last reset."""
    text = Path(f"/proc/{running.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    assert found
    return int(found[1]) * 1024


def forget_peak(running: Command) -> int:
    """Begin to measure the peak anew; give the size of now."""
    Path(f"/proc/{running.process.pid}/clear_refs").write_text("5")
    return peak(running)


def send_all(connection: socket.socket, total: int, size: int = MB, *, chunked: bool = False) -> None:
    head = b"%x\r\n" % size if chunked else b""
    for _ in range(total // size):
        if chunked:
            connection.sendall(head)
        connection.sendall(BLOCK[:size])
        if chunked:
            connection.sendall(b"\r\n")
    if chunked:
        connection.sendall(b"0\r\n\r\n")


def take_all(connection: socket.socket, total: int) -> None:
    room = bytearray(MB)
    left = total
    while left:
        got = connection.recv_into(room, min(MB, left))
        assert got, f"ended with {left} bytes to come"
        left -= got


def take_head(connection: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        assert byte
        head += byte
    return head


@pytest.mark.parametrize("way", ["down", "up", "down-chunked"])
async def test_1_gb_flows_in_constant_memory(stage: Stage, way: str) -> None:
    total = GB if way != "down-chunked" else GB // 4
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(TIME_S)
    warm = await stage.backend(hello)
    with listener:
        address = str(Address(*listener.getsockname()))
        async with command("--backend", str(warm.address), "--backend", address) as running:
            token = None
            for _ in range(2):  # one of the two answers; the other is for the big one
                client = await running.client()
                client.send(request())
                served = asyncio.ensure_future(client.message())
                accepting = asyncio.get_running_loop().run_in_executor(None, listener.accept)
                done, _ = await asyncio.wait((served, accepting), timeout=TIME_S, return_when=asyncio.FIRST_COMPLETED)
                if accepting in done:
                    connection, _ = await accepting
                    await asyncio.to_thread(take_head, connection)
                    await asyncio.to_thread(connection.sendall, response("200 OK", "Connection: close"))
                    token = (await soon(served)).token
                    connection.close()
                    break
                with socket.create_connection(listener.getsockname()):  # set the waiting accept free
                    (await accepting)[0].close()
            assert token
            before = forget_peak(running)
            cookie = f"Cookie: stickyproxy={token}"
            async with asyncio.timeout(TIME_S):
                await asyncio.to_thread(transfer, running, listener, way, cookie, total)
            assert peak(running) - before < GROWTH


def transfer(running: Command, listener: socket.socket, way: str, cookie: str, total: int) -> None:
    """Move the bytes, with blocking sockets in two threads."""
    from concurrent.futures import ThreadPoolExecutor

    with socket.create_connection(running.listen, timeout=TIME_S) as client, ThreadPoolExecutor(1) as pool:
        if way == "up":
            client.sendall(request("POST / HTTP/1.1", cookie, f"Content-Length: {total}"))
        else:
            client.sendall(request("GET / HTTP/1.1", cookie))
        upstream, _ = listener.accept()
        upstream.settimeout(TIME_S)
        with upstream:
            take_head(upstream)
            if way == "up":
                sending = pool.submit(send_all, client, total)
                take_all(upstream, total)
                sending.result()
                upstream.sendall(response())
                assert take_head(client).startswith(b"HTTP/1.1 200 ")
                return
            size = 10_000 if way == "down-chunked" else MB
            if way == "down-chunked":
                upstream.sendall(response("200 OK", "Transfer-Encoding: chunked"))
                count = total // size
                sending = pool.submit(send_all, upstream, total, size, chunked=True)
                take_head(client)
                take_all(client, count * (size + 8) + 5)  # "2710" and two line ends around each
            else:
                upstream.sendall(response("200 OK", f"Content-Length: {total}"))
                sending = pool.submit(send_all, upstream, total)
                take_head(client)
                take_all(client, total)
            sending.result()
