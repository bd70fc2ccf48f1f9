"""The composition root: builds the parts, owns their lifetime and the order of shutdown.

Laws: both ports are bound before anything else, so that a taken port is said at once; SIGTERM drains, after a delay in
which load balancers learn of it (Ctrl-C at a terminal without), a second signal ends; whatever happens to a reload,
what works now goes on working.
"""

import asyncio
import gc
import logging
import os
import random
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import uvloop

from stickyproxy import __version__
from stickyproxy.core.events import Happening, Kind
from stickyproxy.core.news import News
from stickyproxy.core.settings import ServiceSettings
from stickyproxy.core.tls import TlsMaterial
from stickyproxy.core.values import Address
from stickyproxy.dataplane.certificates import CertificateError, fingerprint, read_material
from stickyproxy.dataplane.sockets import is_own_host, raise_descriptor_limit
from stickyproxy.discovery import Discovery
from stickyproxy.discovery.dns import DnsDiscovery
from stickyproxy.discovery.static import StaticDiscovery
from stickyproxy.fleet.fleet import Fleet
from stickyproxy.fleet.journal import Journal
from stickyproxy.fleet.listeners import ListenError, inherit, listeners
from stickyproxy.fleet.upgrade import UpgradeError, take_over, tell, upgrade
from stickyproxy.logs import set_up_logs
from stickyproxy.watchdog import Watchdog

if TYPE_CHECKING:
    from stickyproxy.dataplane.proxy import Proxy
    from stickyproxy.fleet.supervisor import Supervisor

FileMark = tuple[int, int, int] | None
"""What changes when a file does; None where there is no file."""

Load = Callable[[], ServiceSettings]
"""Reads the settings again from the same sources; raises SettingsError."""

CONFIG_CHECK_S = 1.0
"""Seconds between two looks at the configuration file: a mounted ConfigMap changes by swapped links, of which no file
watch tells reliably."""

_FIXED = (
    "listen",
    "admin",
    "dns",
    "dns_interval_s",
    "service",
    "shutdown_delay_s",
    "drain_timeout_s",
    "workers",
    "log_level",
    "log_format",
    "admin_actions",
    "tls",
    "data_plane",
)
"""Settings that a reload cannot change."""


SIDECAR_DNS_HINT = (
    "in a sidecar, which must be ready before its pod is: a headless Service names pods that are not ready only with "
    "publishNotReadyAddresses: true"
)


class SettingsError(Exception):
    """A setting that cannot be used; its text is one line that names the option and what it expects."""


class App:
    """One running proxy: its data planes, with their discovery and admin port."""

    def __init__(
        self, settings: ServiceSettings, load: Load, material: TlsMaterial, sockets: "Sockets", arguments: Sequence[str]
    ) -> None:
        self._settings = settings
        self._load = load
        self._sockets = sockets
        self._arguments = arguments
        self._log = logging.getLogger("stickyproxy")
        self._tls = settings.tls  # as at the start: which files there are cannot change
        self._stop = asyncio.Event()
        self._abort = asyncio.Event()
        self._stopped_by: signal.Signals | None = None
        self._upgrade: asyncio.Task[None] | None = None
        self._supervisor: Supervisor | None = None
        self._proxy: Proxy | None = None
        self.journal = Journal()
        self.fleet = self._make_fleet()
        self.discovery = self._make_discovery()
        self._material = material
        self.fleet.secure(material)
        self._files_seen = self._file_marks()

    def _make_fleet(self) -> Fleet:
        settings = self._settings
        sidecar = settings.data_plane.sidecar
        if settings.workers > 1:
            # Imported here, like the data plane below: each of the two does without the other.
            from stickyproxy.fleet.supervisor import Supervisor

            self._supervisor = Supervisor(settings, self._sockets.listen, self._log, self.journal)
            return Fleet(self._supervisor.slots, sidecar, self._log, self.journal)
        from stickyproxy.dataplane.local import LocalPlane
        from stickyproxy.dataplane.proxy import Proxy

        self._proxy = Proxy(settings.data_plane, random.SystemRandom())
        self._proxy.on_happenings = self.journal.note
        return Fleet([LocalPlane(self._proxy)], sidecar, self._log, self.journal)

    def _make_discovery(self) -> Discovery:
        settings, apply = self._settings, self.fleet.apply
        if settings.service is not None:
            # Imported here: it brings the Kubernetes client, which costs 50 MB.
            from stickyproxy.discovery.kubernetes import KubernetesDiscovery

            return KubernetesDiscovery(settings.service, apply, random.SystemRandom(), saw=self.journal.note)
        if settings.dns is not None:
            hint = SIDECAR_DNS_HINT if settings.data_plane.sidecar is not None else ""
            return DnsDiscovery(settings.dns, settings.dns_interval_s, apply, hint=hint, saw=self.journal.note)
        return StaticDiscovery(settings.backends, apply)

    async def run(self) -> None:
        """Serve until a signal says to stop; return when everything is closed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, partial(self._on_stop, number))
        loop.add_signal_handler(signal.SIGHUP, partial(self.reload, "SIGHUP"))
        loop.add_signal_handler(signal.SIGUSR2, self._on_upgrade)
        background = [self._guard("discovery", self.discovery.run())]
        if self._settings.config_path or self._settings.tls.paths:
            background.append(self._guard("configuration watch", self._watch_files()))
        stall_log_s = self._settings.data_plane.stall_log_s
        watchdog = Watchdog(stall_log_s, self._stalled, self._log) if stall_log_s else None
        try:
            await self._listen()
            admin = None
            if self._sockets.admin:
                # Imported here: it brings aiohttp, which the data plane does without.
                from stickyproxy.admin.server import AdminServer

                admin = AdminServer(
                    lambda thorough=False: self.fleet.status(self.discovery.status, thorough=thorough),
                    self.fleet,
                    self.fleet.app_life if self._settings.data_plane.sidecar is not None else None,
                    actions=self._settings.admin_actions,
                )
                await admin.listen(self._sockets.admin[0].dup())
            # Modules live as long as the process. Left to the garbage collector, its full rounds would walk through all
            # of them and stop every byte for 0.1 s in the Kubernetes mode.
            gc.freeze()
            if watchdog is not None:  # not before: until here modules are loaded, which takes its time
                watchdog.start()
            where = Address(*self._sockets.listen[0].getsockname()[:2])
            by = f" with {self._settings.workers} workers" if self._supervisor is not None else ""
            tls = f" by TLS, certificate {fingerprint(self._material)}" if self._material.certificate else ""
            self._log.info("stickyproxy %s serves on %s%s%s", __version__, where, tls, by)
            self.journal.note([Happening(Kind.START, detail=f"stickyproxy {__version__} serves on {where}{tls}{by}")])
            if (control := self._sockets.control) is not None:
                tell(control, {"ready": __version__})
                background.append(asyncio.ensure_future(take_over(control, self._take_over, self._log)))
            await self._stop.wait()
            if admin is not None and self._upgrade is not None:  # the new version answers from now on
                await admin.close()
            await self._drain()
            if admin is not None:
                await admin.close()
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            if watchdog is not None:
                watchdog.close()
            self._sockets.close()

    def _stalled(self) -> None:
        self.fleet.stalls += 1

    async def _listen(self) -> None:
        if self._supervisor is not None:
            await self._supervisor.start()
        if self._proxy is not None:
            for listener in self._sockets.listen:
                self._proxy.listen(listener.dup())

    async def _drain(self) -> None:
        timeout_s = self._settings.drain_timeout_s
        delay_s = self._settings.shutdown_delay_s if self._stopped_by == signal.SIGTERM else 0.0
        status = await self.fleet.status(self.discovery.status)
        self._log.info(
            "draining: new connections are served for %g s more, then %d connections and %d tunnels have %g s",
            delay_s, status.counters.open_connections, status.tunnels, timeout_s,
        )  # fmt: skip
        why = self._stopped_by.name if self._stopped_by is not None else "a new version serves"
        self.journal.note([Happening(Kind.STOP, detail=f"the proxy leaves ({why}): {status.tunnels} tunnels are open")])
        stop_accepting = asyncio.get_running_loop().call_later(delay_s, self._sockets.close)
        drain = asyncio.ensure_future(self.fleet.leave(delay_s, timeout_s))
        abort = asyncio.ensure_future(self._abort.wait())
        await asyncio.wait((drain, abort), return_when=asyncio.FIRST_COMPLETED)
        abort.cancel()
        stop_accepting.cancel()
        if not drain.done():
            drain.cancel()
            await asyncio.gather(drain, return_exceptions=True)
            await self.fleet.close()
        else:
            drain.result()
        if self._supervisor is not None:
            self._supervisor.close()
        self.journal.close()
        self._log.info("stopped")

    # A new version.

    def _on_upgrade(self) -> None:
        if self._stop.is_set() or self._upgrade is not None:
            self._log.warning("SIGUSR2: expected a running proxy, found one that is leaving or being replaced already")
            return
        self._log.info("SIGUSR2: starting the new version on the same ports")
        self._upgrade = asyncio.ensure_future(self._hand_over())

    async def _hand_over(self) -> None:
        """Start the new version and leave when it serves; go on as if nothing had been where it does not."""
        try:
            pid, version = await upgrade(self._arguments, self._sockets.listen, self._sockets.admin, self._known)
        except UpgradeError as error:
            self._upgrade = None
            self._log.error("SIGUSR2: the new version does not serve, so this one goes on: %s", error)
            return
        self._log.info("stickyproxy %s (pid %d) serves now; this one leaves", version, pid)
        self._stop.set()

    async def _known(self) -> News:
        return self._supervisor.known() if self._supervisor is not None else await self.fleet.known()

    def _take_over(self, news: News) -> None:
        if self._supervisor is not None:
            self._supervisor.hear(news)
        self.fleet.hear(news)

    # What happens meanwhile.

    def _on_stop(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            self._abort.set()
        self._stopped_by = self._stopped_by or number
        self._stop.set()

    def reload(self, reason: str) -> None:
        """Read the list of backends again; a setting that cannot change at run time is named and left as it is."""
        try:
            settings = self._load()
        except SettingsError as error:
            self._log.error("reload (%s): %s; the old settings stay in force", reason, error)
            return
        if settings.tls.backends != self._tls.backends:
            self._log.error("reload (%s): http and https for backends change with a restart only", reason)
            return
        self.discovery.refresh()
        if isinstance(self.discovery, StaticDiscovery) and settings.backends not in ((), self._settings.backends):
            self._log.info("reload (%s): backends are now %s", reason, ", ".join(map(str, settings.backends)))
            self.discovery.replace(settings.backends)
        fixed = [name for name in _FIXED if getattr(settings, name) != getattr(self._settings, name)]
        if fixed:
            self._log.warning("reload (%s): what else has changed needs a restart: %s", reason, ", ".join(fixed))
        self._settings = settings
        self._reload_tls(reason)

    def _reload_tls(self, reason: str) -> None:
        """Read the certificates again; what cannot be used changes nothing."""
        try:
            material = read_material(self._tls)
        except CertificateError as error:
            self._log.error("reload (%s): %s; the old certificates stay in force", reason, error)
            return
        if material == self._material:
            return
        self._material = material
        self.fleet.secure(material)
        by = f"; clients see {fingerprint(material)}" if material.certificate else ""
        self._log.info("reload (%s): new connections use the new certificates%s", reason, by)

    def _file_marks(self) -> tuple[FileMark, tuple[FileMark, ...]]:
        return _file_mark(self._settings.config_path), tuple(map(_file_mark, self._tls.paths))

    async def _watch_files(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(CONFIG_CHECK_S)
            config, certificates = await loop.run_in_executor(None, self._file_marks)
            (config_seen, certificates_seen), self._files_seen = self._files_seen, (config, certificates)
            if config != config_seen:
                self.reload("the configuration file has changed")
            elif certificates != certificates_seen:
                self._reload_tls("a certificate file has changed")

    def _guard(self, what: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something for as long as the proxy runs; should it fail, say so and stop instead of limping on."""
        task = asyncio.ensure_future(work)

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self._log.critical("%s has failed; stopping", what, exc_info=error)
                self._stop.set()

        task.add_done_callback(ended)
        return task


@dataclass(frozen=True, slots=True)
class Sockets:
    """The bound sockets of both ports, and the one to the older version that has handed them down, if any."""

    listen: Sequence[socket.socket]
    admin: Sequence[socket.socket]
    control: socket.socket | None = None

    def close(self) -> None:
        """Close them; idempotent. Who comes from now on is refused, unless somebody else listens."""
        for one in (*self.listen, *self.admin):
            one.close()


def run(settings: ServiceSettings, load: Load, arguments: Sequence[str] = ("run",)) -> None:
    """Run a proxy until it is told to stop; SettingsError where an address or a port cannot be had.

    arguments: of `stickyproxy`, with which a new version would be started.
    """
    set_up_logs(settings.log_level, settings.log_format)
    try:
        material = read_material(settings.tls)
        sockets = _sockets(settings)
    except (CertificateError, ListenError) as error:
        raise SettingsError(str(error)) from None

    raise_descriptor_limit()

    async def main() -> None:
        await App(settings, load, material, sockets, arguments).run()

    uvloop.run(main())


def _sockets(settings: ServiceSettings) -> Sockets:
    inherited = inherit(os.environ)
    try:
        sidecar = settings.data_plane.sidecar
        if sidecar is not None and not is_own_host(sidecar.local.host):
            raise ListenError(
                f"--local-backend: expected an address of this machine, such as 127.0.0.1:{sidecar.local.port}, "
                f"found {sidecar.local}"
            )
        listen = listeners("listen", settings.listen, settings.workers, inherited.listen)
        admin = listeners("admin", settings.admin, 1, inherited.admin) if settings.admin is not None else []
        for unwanted in inherited.admin if settings.admin is None else ():
            unwanted.close()
    except ListenError as error:
        if inherited.control is not None:
            tell(inherited.control, {"failed": str(error)})
        raise
    return Sockets(listen, admin, inherited.control)


def _file_mark(path: str) -> FileMark:
    """Give what changes when a file does; None where there is no file."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size
