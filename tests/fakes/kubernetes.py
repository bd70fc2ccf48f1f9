"""A Kubernetes API server that holds EndpointSlices and misbehaves when it is told to.

Laws: real sockets on loopback, on one port for all of its life; what it does without being told to is what a real
API server does (resource versions, selectors, compaction); nothing waits for time to pass: `until` waits for states.
"""

import asyncio
import json
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from kubernetes.aio import client

from stickyproxy.discovery.kubernetes import Access

from .slices import Slice

BOUND_S = 20.0
"""Most seconds anything may take that should happen at once, on a busy machine."""

FOLDER = Path(__file__).parent
CERTIFICATE, KEY = FOLDER / "loopback.crt", FOLDER / "loopback.key"
"""A self-signed pair for 127.0.0.1, of no use anywhere else; valid from 2020 to 2120."""

OTHER_CERTIFICATE = FOLDER / "other.crt"
"""One that has signed nothing here."""

PATH = "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"


def failure(code: int, message: str = "told to fail") -> dict[str, Any]:
    """Make what the API says where it fails."""
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


def forbidden(verb: str = "list", user: str = "system:serviceaccount:shop:web") -> "Answer":
    """Make the refusal of an API server with RBAC."""
    text = f'endpointslices.discovery.k8s.io is forbidden: User "{user}" cannot {verb} resource "endpointslices"'
    return Answer(403, json.dumps(failure(403, text)).encode())


# What it does instead, when told to.


@dataclass(frozen=True)
class Answer:
    """An answer to give instead of the right one.

    until: the answer waits for it. cut: the connection breaks behind the body, of which more was promised.
    """

    status: int = 200
    body: bytes = b""
    until: asyncio.Event | None = None
    cut: bool = False

    @classmethod
    def of(cls, status: int) -> "Answer":
        """Give an error as the API says it."""
        return cls(status, json.dumps(failure(status)).encode())


class _End:
    """The regular end of a watch."""


class _Cut:
    """The loss of a watch's connection."""


class _Watch:
    def __init__(self, namespace: str, selector: str) -> None:
        self.namespace = namespace
        self.selector = selector
        self.frozen = False
        self.queue: asyncio.Queue[bytes | _End | _Cut] = asyncio.Queue()


@dataclass(frozen=True)
class Seen:
    """A request that came."""

    watch: bool
    version: str
    namespace: str
    query: dict[str, str]
    authorization: str


class Pulse:
    """Lets tests wait for states of anything that beats it when something happens."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def beat(self) -> None:
        """Say that something has happened."""
        self._event.set()
        self._event = asyncio.Event()

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Wait for a state; it is looked at whenever something has happened."""
        try:
            async with asyncio.timeout(BOUND_S):
                while not condition():
                    await self._event.wait()
        except TimeoutError:
            raise AssertionError(f"did not happen within {BOUND_S:g} s: {what or condition}") from None


class FakeApi:
    """The API server. `lists`, `watches`: answers to give instead of the right ones, one after another; `list_always`,
    `watch_always`: the answer to give instead as long as it is set. `tokens`: the bearer tokens it takes, None: any.
    """

    def __init__(self, *, tls: bool = False) -> None:
        self.lists: list[Answer] = []
        self.watches: list[Answer] = []
        self.list_always: Answer | None = None
        self.watch_always: Answer | None = None
        self.tokens: set[str] | None = None
        self.gone_by_status = False
        self.pulse = Pulse()
        self.seen: list[Seen] = []
        self._objects: dict[tuple[str, str], Slice] = {}
        self._changes: list[tuple[int, Slice | None, Slice | None]] = []
        self._version = 100
        self._compacted = 0
        self._watching: set[_Watch] = set()
        self._tls: ssl.SSLContext | None = None
        if tls:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(CERTIFICATE, KEY)
        # Bound but not listening: the port stays ours while we are stopped, and connections to it are refused.
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", 0))
        self.port: int = self._holder.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._handlers: web.Server[web.BaseRequest] | None = None

    async def __aenter__(self) -> "FakeApi":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        self._holder.close()

    @property
    def url(self) -> str:
        """Give the address for a kubeconfig."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def connect(self) -> Access:
        """Connect as discovery's own `connect` does, without credentials and in next to no time."""
        configuration = client.Configuration(host=self.url)
        configuration.ca_cert_data = CERTIFICATE.read_text()  # else the system's CAs are read, which takes 30 ms
        return Access(client.ApiClient(configuration), "shop")

    def kubeconfig(self, folder: Path, *, namespace: str = "shop") -> Path:
        """Write a kubeconfig whose token is in the file `token` beside it."""
        (folder / "token").touch()
        path = folder / "kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "test",
                    "clusters": [
                        {"name": "fake", "cluster": {"server": self.url, "certificate-authority": str(CERTIFICATE)}}
                    ],
                    "users": [{"name": "me", "user": {"tokenFile": "token"}}],
                    "contexts": [
                        {"name": "test", "context": {"cluster": "fake", "user": "me", "namespace": namespace}}
                    ],
                }
            )
        )
        return path

    async def start(self) -> None:
        """Listen, on the same port as before."""
        self._handlers = web.Server(self._handle, access_log=None, handler_cancellation=True)  # type: ignore[arg-type]
        self._server = await asyncio.get_running_loop().create_server(
            self._handlers, "127.0.0.1", self.port, ssl=self._tls
        )

    async def stop(self) -> None:
        """Break all connections and refuse new ones."""
        if self._server is None or self._handlers is None:
            return
        self._server.close()
        for _ in range(5):  # what was accepted just now is not yet among the connections
            await asyncio.sleep(0)
        for handler in self._handlers.connections:
            if handler.transport is not None:
                handler.transport.abort()
        await self._handlers.shutdown(0.1)
        await self._server.wait_closed()
        self._server = self._handlers = None

    # What it holds.

    def put(self, *slices: Slice) -> None:
        """Create or replace slices."""
        for slice_ in slices:
            metadata = slice_["metadata"]
            key = metadata["namespace"], metadata["name"]
            self._version += 1
            stored = slice_ | {"metadata": metadata | {"resourceVersion": str(self._version)}}
            self._change(self._objects.get(key), stored)
            self._objects[key] = stored

    def delete(self, *names: str, namespace: str = "shop") -> None:
        """Delete slices."""
        for name in names:
            self._version += 1
            self._change(self._objects.pop((namespace, name)), None)

    def has(self, name: str, namespace: str = "shop") -> bool:
        """Say whether there is a slice of this name."""
        return (namespace, name) in self._objects

    def objects(self, service: str, namespace: str = "shop") -> list[Slice]:
        """Give the slices of a Service, as a list would."""
        watching = _Watch(namespace, f"kubernetes.io/service-name={service}")
        return [found for found in self._objects.values() if _matches(found, watching)]

    def compact(self) -> None:
        """Forget all changes before now: to watch from an older version ends with 410."""
        self._version += 1  # what else happens in a cluster
        self._compacted = self._version
        self._changes.clear()

    def bookmark(self) -> None:
        """Send bookmarks."""
        self._version += 1
        self.send({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self._version)}}})

    def _change(self, old: Slice | None, new: Slice | None) -> None:
        change = (self._version, old, new)
        self._changes.append(change)
        for watch in self._watching:
            self._tell(watch, change)

    def _tell(self, watch: _Watch, change: tuple[int, Slice | None, Slice | None]) -> None:
        version, old, new = change
        before, after = _matches(old, watch), _matches(new, watch)
        if not (before or after) or watch.frozen:
            return
        kind = "MODIFIED" if before and after else "ADDED" if after else "DELETED"
        found = new if after else old
        assert found is not None
        found = found | {"metadata": found["metadata"] | {"resourceVersion": str(version)}}
        watch.queue.put_nowait(_line({"type": kind, "object": found}))

    # What it does to the watches that are open.

    @property
    def open_watches(self) -> int:
        """Count the watches."""
        return len(self._watching)

    def send(self, event: object) -> None:
        """Send an event, whatever it is."""
        self.send_bytes(_line(event))

    def send_bytes(self, data: bytes) -> None:
        """Send bytes."""
        for watch in self._watching:
            watch.queue.put_nowait(data)

    def fail(self, code: int) -> None:
        """Send an ERROR event."""
        self.send({"type": "ERROR", "object": failure(code)})

    def freeze(self) -> None:
        """Let the watches that are open now hear of no change any more, as where a connection is dead."""
        for watch in self._watching:
            watch.frozen = True

    def end(self, rest: bytes = b"") -> None:
        """End the watches regularly, behind `rest`."""
        self._finish(rest, _End())

    def cut(self, rest: bytes = b"") -> None:
        """Break the watches' connections, behind `rest`."""
        self._finish(rest, _Cut())

    def _finish(self, rest: bytes, how: _End | _Cut) -> None:
        if rest:
            self.send_bytes(rest)
        for watch in self._watching:
            watch.queue.put_nowait(how)

    # What tests wait for.

    def count(self, *, watch: bool) -> int:
        """Count the lists, or the watches, that were asked for until now."""
        return sum(seen.watch is watch for seen in self.seen)

    async def listed(self, count: int) -> None:
        """Wait until so many lists were asked for."""
        await self.pulse.until(lambda: self.count(watch=False) >= count, f"list {count}")

    async def watched(self, count: int = 1) -> None:
        """Wait until so many watches were asked for and one is open."""
        await self.pulse.until(lambda: self.count(watch=True) >= count and self._watching, f"watch {count}")

    async def deserted(self) -> None:
        """Wait until no connection is open; a connection's end has no event, so the loop turns."""
        async with asyncio.timeout(BOUND_S):
            while self._handlers is not None and self._handlers.connections:  # noqa: ASYNC110
                await asyncio.sleep(0)

    # How it answers.

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        query = dict(request.query)
        watch = query.get("watch") in ("1", "true", "True")
        namespace = request.path.split("/")[5] if request.path.count("/") == 6 else ""
        seen = Seen(watch, query.get("resourceVersion", ""), namespace, query, request.headers.get("Authorization", ""))
        self.seen.append(seen)
        self.pulse.beat()
        queue, always = (self.watches, self.watch_always) if watch else (self.lists, self.list_always)
        told = queue.pop(0) if queue else always
        if told is not None:
            return await self._as_told(request, told)
        scheme, _, token = seen.authorization.partition(" ")
        if self.tokens is not None and (scheme.lower() != "bearer" or token not in self.tokens):
            return _json(failure(401, "Unauthorized"), 401)
        if request.path != PATH.format(namespace):
            return _json(failure(404, "the server could not find the requested resource"), 404)
        watching = _Watch(namespace, query.get("labelSelector", ""))
        if watch:
            return await self._watch(request, watching, int(seen.version or 0))
        items = [found for found in self._objects.values() if _matches(found, watching)]
        return _json({"kind": "EndpointSliceList", "metadata": {"resourceVersion": str(self._version)}, "items": items})

    async def _as_told(self, request: web.BaseRequest, told: Answer) -> web.StreamResponse:
        if told.until is not None:
            await told.until.wait()
        if not told.cut:
            return web.Response(status=told.status, body=told.body, content_type="application/json")
        response = web.StreamResponse(status=told.status)
        response.content_length = len(told.body) + 1000
        await response.prepare(request)
        await response.write(told.body)
        assert request.transport is not None
        request.transport.close()
        return response

    async def _watch(self, request: web.BaseRequest, watching: _Watch, version: int) -> web.StreamResponse:
        gone = failure(410, f"too old resource version: {version} ({self._compacted})")
        if version < self._compacted and self.gone_by_status:
            return _json(gone, 410)
        response = web.StreamResponse()
        response.content_type = "application/json"
        response.enable_chunked_encoding()
        if version < self._compacted:
            watching.queue.put_nowait(_line({"type": "ERROR", "object": gone}))
            watching.queue.put_nowait(_End())
        else:
            for change in self._changes:
                if change[0] > version:
                    self._tell(watching, change)
        self._watching.add(watching)
        try:
            await response.prepare(request)
            self.pulse.beat()
            while not isinstance(item := await watching.queue.get(), _End):
                if isinstance(item, _Cut):
                    assert request.transport is not None
                    request.transport.close()
                    break
                await response.write(item)
            else:
                with suppress(ConnectionError):
                    await response.write_eof()
        except ConnectionError:
            pass  # the watcher has gone, which is what it may do
        finally:
            self._watching.discard(watching)
            self.pulse.beat()
        return response


def _matches(found: Slice | None, watch: _Watch) -> bool:
    if found is None or found["metadata"]["namespace"] != watch.namespace:
        return False
    name, _, value = watch.selector.partition("=")
    return not name or found["metadata"]["labels"].get(name) == value


def _line(event: object) -> bytes:
    return json.dumps(event).encode() + b"\n"


def _json(found: object, status: int = 200) -> web.Response:
    return web.Response(status=status, body=json.dumps(found).encode(), content_type="application/json")
