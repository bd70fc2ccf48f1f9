"""What all connections of one data plane share: snapshot, pools, rules, counters, and the one sweep over deadlines.

Laws: a new snapshot replaces the old one by one assignment; no backend is dialled but for a client's request; one
coarse sweep serves all deadlines.
"""

import asyncio
import logging
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from random import Random

from stickyproxy.core.absences import Absence, Absences
from stickyproxy.core.access_log import LogFormat
from stickyproxy.core.backends import Backend, Phase, Secrets, Snapshot
from stickyproxy.core.cookies import CookieWriter
from stickyproxy.core.counters import Counters
from stickyproxy.core.ending import Stage
from stickyproxy.core.events import Gathering, Happening, Kind
from stickyproxy.core.files import Files
from stickyproxy.core.forwarded import TrustedProxies
from stickyproxy.core.health import Readiness, readiness
from stickyproxy.core.limits import Limit, moves
from stickyproxy.core.news import News
from stickyproxy.core.pages import Pages
from stickyproxy.core.past import Past
from stickyproxy.core.places import Places, connections_for
from stickyproxy.core.plane import Report
from stickyproxy.core.reloads import ReloadGuard
from stickyproxy.core.request import RequestReader
from stickyproxy.core.response import ResponseReader
from stickyproxy.core.settings import Settings
from stickyproxy.core.tls import TlsMaterial
from stickyproxy.core.tunnels import End, judge
from stickyproxy.dataplane.acceptor import Acceptor
from stickyproxy.dataplane.access_log import AccessLog, LoggedDownstream
from stickyproxy.dataplane.admission import Admission
from stickyproxy.dataplane.asset_flights import AssetFlights
from stickyproxy.dataplane.buffered import Buffered
from stickyproxy.dataplane.certificates import backend_context, server_context
from stickyproxy.dataplane.downstream import Downstream
from stickyproxy.dataplane.drains import Drains
from stickyproxy.dataplane.ending import Ending
from stickyproxy.dataplane.failures import Failures
from stickyproxy.dataplane.log_writer import LogWriter
from stickyproxy.dataplane.parking import Parking
from stickyproxy.dataplane.pool import Pool
from stickyproxy.dataplane.reporting import report
from stickyproxy.dataplane.sidecar import Sidecar
from stickyproxy.dataplane.sockets import descriptor_limit, silence_s, tune_socket
from stickyproxy.dataplane.sweep import Sweep
from stickyproxy.dataplane.tls import Wire
from stickyproxy.dataplane.tunnel import Tunnel

STANDARD_OUTPUT = 1

LAG_SWEEPS = 10
"""So many of the last sweeps tell how late the event loop runs: those of some ten seconds."""


class Proxy:
    """One data plane: accepts clients on its listeners and forwards to the backends of its snapshot.

    Must be made inside a running event loop. `synced` turns true with the first snapshot.
    """

    def __init__(self, settings: Settings, random: Random) -> None:
        self.settings = settings
        self.times = settings.times
        self.loop = asyncio.get_running_loop()
        self.time = time.monotonic  # what asyncio's own loop tells; uvloop's stands still within a round, in whole ms
        self.random = random
        self.log = logging.getLogger("stickyproxy")
        self.counters = Counters()
        self.trusted = TrustedProxies(settings.trusted)
        self.cookie = CookieWriter(settings.affinity.cookie)
        self.reader = RequestReader(settings.affinity.cookie.name, settings.health.probers, settings.limits.headers)
        self.response_reader = ResponseReader()
        self.happenings = Gathering()
        self.on_happenings: Callable[[list[Happening]], None] | None = None
        self._past = Past()
        self.failures = Failures(settings, self.counters, self.time, self.log, random, self.happenings)
        self.balancer = self.failures.balancer
        self.hashing = settings.affinity.hash_key is not None
        self.has_health_paths = bool(settings.health.paths)
        self.stage = Stage.SERVING
        self.draining = False  # in any stage but the first
        self.parting = False  # every answer is its connection's last
        self.synced = False
        self.tunnels: set[Tunnel] = set()
        self.pages = Pages(settings.affinity.page_limit, settings.affinity.page_ttl_s)
        self.absences = Absences(settings.affinity.page_limit, settings.times.lost_s)
        self.files = Files(settings.affinity.file_limit)
        self.versions: dict[str, bytes] = {}  # NiceGUI's, by identity, learned from the pages a backend built
        self.assets: AssetFlights | None = None
        if settings.help.asset_cache_bytes:
            self.assets = AssetFlights(settings.help.asset_cache_bytes, self.counters)
        self.reloads = ReloadGuard(settings.help.reload_limit)
        self.access_log: AccessLog | None = None
        if settings.log.access is not LogFormat.OFF:
            self.access_log = AccessLog(settings.log, random, LogWriter(STANDARD_OUTPUT, self._line_dropped))
        self.parking = Parking(self) if settings.parking.park_s else None
        self.sidecar = Sidecar(self, settings.sidecar) if settings.sidecar is not None else None
        self._secrets = Secrets(settings.affinity.secrets)
        self.snapshot = Snapshot((), self._secrets)
        self.listed: tuple[Backend, ...] = ()  # as discovery gives them
        self.drains = Drains(self)
        self._snapshot_change = asyncio.Event()
        self.pools: dict[str, Pool] = {}
        self.downstreams: set[Downstream] = set()
        self.watched_tunnels: dict[Tunnel, tuple[float, int]] = {}  # deadline, and bytes unwritten when it was set
        limits = settings.limits
        places = Places(connections_for(descriptor_limit(), limits.connections), limits.connections_per_client)
        self.admission = Admission(self, places)
        self.wire = Wire()
        self.client_tls: ssl.SSLContext | None = None  # None: clients speak plain HTTP
        self.backend_tls: ssl.SSLContext | None = None  # None: backends do
        self.sweep = Sweep(self, self._between_rounds)
        self.buffered = Buffered(limits.buffered_bytes, self._count_dropped)
        self.tunnel_idle_checks: dict[Tunnel, float] = {}  # when to look next; empty where tunnels may be idle for ever
        self._least_taken = int(limits.body_rate * settings.times.body_s) or 1
        self._ending = Ending(self, random)
        self.lags: deque[float] = deque(maxlen=LAG_SWEEPS)
        self.longest_lag_s = 0.0
        self.ended_tunnels_bytes = (0, 0)  # received from clients, sent to them

    def secure(self, material: TlsMaterial) -> None:
        """Speak TLS with these certificates on connections that begin from now on."""
        self.client_tls = server_context(material)
        self.backend_tls = backend_context(material)

    # Backends.

    def apply(self, backends: Iterable[Backend]) -> None:
        """Put a new set of backends in force; tunnels and running exchanges stay where they are."""
        self.listed = tuple(backends)
        self.reapply()
        self.synced = True

    def reapply(self) -> None:
        """Put the listed backends in force again, with the phases that orders to drain give them."""
        backends, own = self.drains.overlay(self.listed), None
        if self.sidecar is not None:
            backends, own = self.sidecar.localise(backends)
        snapshot = Snapshot(backends, self._secrets, own)
        self.balancer.apply(snapshot.backends, self.time())
        self.failures.apply(snapshot)
        for identity, pool in list(self.pools.items()):
            backend = snapshot.by_identity.get(identity)
            if backend is not None and backend.address == pool.backend.address:
                pool.backend = backend
            else:
                pool.close()
                del self.pools[identity]
        self._past.replaced(self.snapshot, snapshot)
        self.counters.retain(snapshot.by_identity)
        for backend in snapshot.backends:
            self.counters.tally(backend.identity)
        self.versions = {i: version for i, version in self.versions.items() if i in snapshot.by_identity}
        self.snapshot = snapshot
        self._snapshot_change.set()
        self._snapshot_change = asyncio.Event()

    def name_of(self, key: str | bytes) -> str:
        """Name the backend of an identity or a token, be it of the past; empty where it is not known."""
        return self.snapshot.name_of(key) or self._past.name_of(key)

    async def snapshot_change(self, timeout_s: float) -> None:
        """Wait for the next snapshot, for so long at the most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._snapshot_change.wait()

    def pool_of(self, backend: Backend) -> Pool:
        """Give the pool of a backend of the current snapshot."""
        pool = self.pools.get(backend.identity)
        if pool is None:
            load, tally = self.balancer.loads[backend.identity], self.counters.tally(backend.identity)
            limits = self.settings.limits
            pool = self.pools[backend.identity] = Pool(backend, load, tally, limits.idle_upstreams, limits.pending)
            pool.failing = self.failures.ejections.troubled(backend.identity)
        return pool

    # Rules.

    def hear(self, news: News) -> None:
        """Take in which pages and files somebody else knows."""
        now = self.time()
        for page, told in news.pages.items():
            self.pages.hear(page, told, now)
            if told.version and told.identity in self.snapshot.by_identity:
                self.versions[told.identity] = told.version
        self.files.hear(news.files)

    def is_health_path(self, target: bytes) -> bool:
        """Say whether a target is one of `--health-path`, whatever its query."""
        return target.partition(b"?")[0] in self.settings.health.paths

    def health(self) -> Readiness:
        """Judge whether this proxy should get traffic."""
        return readiness(
            self.snapshot,
            synced=self.synced,
            draining=self.draining,
            needs_backend=self.settings.health.ready_needs_backend,
            missing=self.sidecar.missing() if self.sidecar is not None else "",
        )

    def report(self, *, thorough: bool = False) -> Report:
        """Report the state of this moment; a thorough one walks over all pages and connections."""
        return report(self, thorough=thorough)

    # Connections.

    def listen(self, listener: socket.socket) -> Acceptor:
        """Accept clients on one more bound socket; what is set on it, accepted connections inherit."""
        tune_socket(listener, self.settings.keepalive_s)
        self.sweep.start()
        return self.admission.listen(listener)

    def make_downstream(self, client: bytes, place: bytes | None) -> Downstream:
        """Make the protocol of a client's connection."""
        if self.access_log is not None:
            return LoggedDownstream(self, self.access_log, client, place)
        return Downstream(self, client, place)

    def tune(self, transport: asyncio.Transport) -> None:
        """Set TCP options on a connection to a backend."""
        connection = transport.get_extra_info("socket")
        if connection is not None:
            tune_socket(connection, self.settings.keepalive_s)

    def someone_enters(self) -> None:
        """Hear that a place has been taken by somebody who is on the way in."""
        self._ending.someone_is_there()

    def downstream_made(self, downstream: Downstream) -> None:
        """Take a new client connection into the books."""
        self.counters.connections += 1
        self.counters.open_connections += 1
        self.downstreams.add(downstream)
        self._ending.someone_is_there()

    def downstream_lost(self, downstream: Downstream, tunnel: Tunnel | None = None) -> None:
        """Strike a client connection that has ended or become a tunnel, which then keeps its place; idempotent."""
        if downstream in self.downstreams:
            self.downstreams.remove(downstream)
            self.counters.open_connections -= 1
            if tunnel is not None:
                tunnel.place = downstream.place
            else:
                self.leave_place(downstream.place)

    def leave_place(self, place: bytes | None) -> None:
        """Free a place."""
        self.admission.left(place)
        self._look_who_is_there()

    def _look_who_is_there(self) -> None:
        """Tell when the last has left; a page that is let go has no place, but its backend's side has yet to end."""
        if not (self.admission.places.taken or self.tunnels):
            self._ending.nobody_is_there()

    def tunnel_made(self, tunnel: Tunnel) -> None:
        """Take a tunnel into the books."""
        self.counters.tunnels += 1
        self.tunnels.add(tunnel)
        if self.times.tunnel_idle_s:
            self.tunnel_idle_checks[tunnel] = self.time() + self.times.tunnel_idle_s
        self._ending.someone_is_there()
        self._ending.tunnel_made(tunnel)

    def tunnel_stalled(self, tunnel: Tunnel) -> None:
        """Give a tunnel that waits for a leg to take what there is a deadline; a new one, since bytes have moved."""
        self.watched_tunnels[tunnel] = (self.time() + self.times.body_s, tunnel.unwritten)
        self.buffered.hold(tunnel, tunnel.waiting_bytes)

    def tunnel_flows(self, tunnel: Tunnel) -> None:
        """Hear that what a tunnel was waiting for has been taken."""
        self.buffered.hold(tunnel, tunnel.waiting_bytes)

    def _count_dropped(self) -> None:
        self.counters.limits[Limit.BUFFERED] += 1

    def takes(self, before: int, now: int) -> bool:
        """Say whether a peer is slow and not gone, which has let `body_s` pass; count it if it is too slow."""
        if moves(before, now, self._least_taken):
            return True
        if now < before:
            self.counters.limits[Limit.RATE] += 1
        return False

    def tunnel_side_ended(self, tunnel: Tunnel, error: Exception | None, *, client: bool) -> None:
        """Judge why a tunnel ends that nobody here has ended."""
        backend, pool = self.snapshot.by_identity.get(tunnel.identity), self.pools.get(tunnel.identity)
        leaving = backend is None or (backend.phase is Phase.DRAINING and not self.drains.ordered(tunnel.identity))
        leg = tunnel.downstream
        tunnel.end = judge(
            error, tunnel.said,
            client=client, websocket=tunnel.websocket, gone=leaving or (pool is not None and pool.warned),
            client_silent_s=silence_s(leg.transport) if leg is not None and not leg.transport.is_closing() else 0.0,
        )  # fmt: skip

    def page_came(self, page: bytes, identity: str) -> bool:
        """Hear that a backend answered a request of a page; say whether the page had been away."""
        back = self.absences.came(page, identity, self.time()) if self.absences else None
        if back is not None:
            self.counters.count_return(back)
        return back is not None

    def page_left(self, page: bytes, absence: Absence) -> None:
        """Hear that the last socket of a page has ended."""
        self.absences.left(page, absence)

    def tunnel_closing(self, tunnel: Tunnel) -> None:
        """Give the second leg of a tunnel a deadline for what is still to be written."""
        now = self.time()
        end = tunnel.end or End.ERROR
        self.counters.tunnel_ends[end.value] += 1
        if end in (End.BACKEND, End.BACKEND_GONE):
            self.happenings.add(Happening(Kind.CUT, self.name_of(tunnel.identity), cause=end.value))
        self.watched_tunnels[tunnel] = (now + self.times.body_s, tunnel.unwritten)
        self.drains.wake()
        if tunnel.page:
            self.pages.closed(tunnel.page, now)
            found = self.pages.find(tunnel.page)
            if found is None or not found.sockets:
                self.page_left(tunnel.page, Absence(tunnel.identity, now, end))

    def tunnel_ended(self, tunnel: Tunnel) -> None:
        """Strike a tunnel."""
        received, sent = self.ended_tunnels_bytes
        more = tunnel.moved_bytes
        self.ended_tunnels_bytes = received + more[0], sent + more[1]
        if tunnel.log is not None:
            tunnel.log.ended(tunnel.end or End.ERROR, self.time(), *more)
            tunnel.log = None
        self.watched_tunnels.pop(tunnel, None)
        self.tunnel_idle_checks.pop(tunnel, None)
        self.buffered.hold(tunnel, 0)
        self.tunnels.discard(tunnel)
        if tunnel.seated:
            self.leave_place(tunnel.place)
        else:
            self._look_who_is_there()

    def _line_dropped(self) -> None:
        self.counters.log_dropped += 1

    def tunnel_deadline_passed(self, tunnel: Tunnel, unwritten: int) -> None:
        """Drop a tunnel of which nothing has been taken since it had so many bytes unwritten."""
        if self.takes(unwritten, tunnel.unwritten):
            self.watched_tunnels[tunnel] = (self.time() + self.times.body_s, tunnel.unwritten)
        else:
            tunnel.drop()

    def tunnel_idle_check(self, tunnel: Tunnel) -> None:
        """Close a tunnel in which no byte has moved for too long, or look again when that could be so."""
        left_s = self.times.tunnel_idle_s - tunnel.silence_s
        if left_s > 0:
            self.tunnel_idle_checks[tunnel] = self.time() + left_s
        else:
            del self.tunnel_idle_checks[tunnel]
            tunnel.close(End.IDLE)

    def _between_rounds(self, now: float, lag_s: float) -> None:
        """Do what is to be done once a second; `lag_s`: how late that is."""
        self.lags.append(lag_s)
        self.longest_lag_s = max(self.longest_lag_s, lag_s)
        self.pages.expire(now)
        for absence in self.absences.expire(now).values():
            self.counters.lost[absence.end.value] += 1
            self.happenings.add(Happening(Kind.LOST, self.name_of(absence.identity), cause=absence.end.value))
        self.drains.wake()
        if self.parking is not None:
            self.parking.sweep(now)
        if self.sidecar is not None:
            self.sidecar.sweep()
        self.failures.sweep(now)
        self.tell_happenings()
        idle_before = now - self.settings.times.upstream_idle_s
        for pool in self.pools.values():
            pool.close_idle(idle_before)

    def tell_happenings(self) -> None:
        """Hand on what has happened since the last time."""
        if self.happenings:
            happenings = self.happenings.take()
            if self.on_happenings is not None:
                self.on_happenings(happenings)

    # The end.

    def stop_accepting(self) -> None:
        """Close the listeners; idempotent."""
        self.admission.stop()

    def enter_stage(self, stage: Stage) -> None:
        """Go on to another stage of the end."""
        self.stage = stage
        self.draining = stage is not Stage.SERVING
        self.set_parting()

    def set_parting(self) -> None:
        """Let answers end their connections while it is time to leave, or while others wait to come in."""
        self.parting = self.draining or self.admission.crowded

    def announce(self) -> None:
        """Be unready from now on."""
        self._ending.announce()

    async def leave(self, delay_s: float, timeout_s: float) -> None:
        """Serve on for a while, unready, until load balancers send nobody here any more; then drain."""
        await self._ending.leave(delay_s, timeout_s)

    async def drain(self, timeout_s: float) -> None:
        """Stop accepting, let exchanges finish, close tunnels spread over the time, drop the rest at its end."""
        await self._ending.drain(timeout_s)

    async def close(self) -> None:
        """Drop every connection and wait until all are gone."""
        await self._ending.close()
