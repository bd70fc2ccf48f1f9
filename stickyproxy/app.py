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
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import uvloop

from stickyproxy import __version__
from stickyproxy.core.settings import ServiceSettings
from stickyproxy.core.values import Address
from stickyproxy.dataplane.proxy import Proxy
from stickyproxy.dataplane.sockets import is_own_host
from stickyproxy.discovery import Discovery
from stickyproxy.discovery.dns import DnsDiscovery
from stickyproxy.discovery.static import StaticDiscovery

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
    "log_level",
    "data_plane",
)
"""Settings that a reload cannot change."""


SIDECAR_DNS_HINT = (
    "in a sidecar, which must be ready before its pod is: a headless Service names pods that are not ready only with "
    "publishNotReadyAddresses: true"
)


class SettingsError(Exception):
    """A setting that cannot be used; its text is one line that names the option and what it expects."""


def bind(option: str, address: Address) -> socket.socket:
    """Bind a listening socket; SettingsError names the option that asked for it."""
    try:
        family, _, _, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # [::] means every address
        listener.bind(where)
        listener.setblocking(False)
    except OSError as error:
        raise SettingsError(
            f"--{option}: cannot listen on {address}: {error.strerror}; "
            "expected an address of this machine and a port that no other program uses"
        ) from None
    return listener


class App:
    """One running proxy with its discovery and admin port."""

    def __init__(self, settings: ServiceSettings, load: Load) -> None:
        self._settings = settings
        self._load = load
        self._log = logging.getLogger("stickyproxy")
        self._stop = asyncio.Event()
        self._abort = asyncio.Event()
        self._stopped_by: signal.Signals | None = None
        self.proxy = Proxy(settings.data_plane, random.SystemRandom())
        self.discovery = self._make_discovery()
        self._config_seen = _file_mark(settings.config_path)

    def _make_discovery(self) -> Discovery:
        settings = self._settings
        if settings.service is not None:
            # Imported here: it brings the Kubernetes client, which costs 50 MB.
            from stickyproxy.discovery.kubernetes import KubernetesDiscovery

            return KubernetesDiscovery(settings.service, self.proxy.apply, random.SystemRandom())
        if settings.dns is not None:
            hint = SIDECAR_DNS_HINT if self.proxy.sidecar is not None else ""
            return DnsDiscovery(settings.dns, settings.dns_interval_s, self.proxy.apply, hint=hint)
        return StaticDiscovery(settings.backends, self.proxy.apply)

    async def run(self, listener: socket.socket, admin_listener: socket.socket | None) -> None:
        """Serve until a signal says to stop; return when everything is closed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, partial(self._on_stop, number))
        loop.add_signal_handler(signal.SIGHUP, partial(self.reload, "SIGHUP"))
        background = [self._guard("discovery", self.discovery.run())]
        if self._settings.config_path:
            background.append(self._guard("configuration watch", self._watch_config()))
        try:
            admin = None
            await self.proxy.listen(listener)
            if admin_listener is not None:
                # Imported here: it brings aiohttp, which the data plane does without.
                from stickyproxy.admin.server import AdminServer

                sidecar = self.proxy.sidecar
                admin = AdminServer(
                    lambda: self.proxy.status(self.discovery.status),
                    self.proxy.drains,
                    sidecar.life if sidecar is not None else None,
                )
                await admin.listen(admin_listener)
            # Modules live as long as the process. Left to the garbage collector, its full rounds would walk through all
            # of them and stop every byte for 0.1 s in the Kubernetes mode.
            gc.freeze()
            self._log.info("stickyproxy %s serves on %s", __version__, Address(*listener.getsockname()[:2]))
            await self._stop.wait()
            await self._drain()
            if admin is not None:
                await admin.close()
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)

    async def _drain(self) -> None:
        proxy, timeout_s = self.proxy, self._settings.drain_timeout_s
        delay_s = self._settings.shutdown_delay_s if self._stopped_by == signal.SIGTERM else 0.0
        self._log.info(
            "draining: new connections are served for %g s more, then %d connections and %d tunnels have %g s",
            delay_s, proxy.counters.open_connections, len(proxy.tunnels), timeout_s,
        )  # fmt: skip
        drain = asyncio.ensure_future(proxy.leave(delay_s, timeout_s))
        abort = asyncio.ensure_future(self._abort.wait())
        await asyncio.wait((drain, abort), return_when=asyncio.FIRST_COMPLETED)
        abort.cancel()
        if not drain.done():
            drain.cancel()
            await asyncio.gather(drain, return_exceptions=True)
            await proxy.close()
        else:
            drain.result()
        self._log.info("stopped")

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
        self.discovery.refresh()
        if isinstance(self.discovery, StaticDiscovery) and settings.backends not in ((), self._settings.backends):
            self._log.info("reload (%s): backends are now %s", reason, ", ".join(map(str, settings.backends)))
            self.discovery.replace(settings.backends)
        fixed = [name for name in _FIXED if getattr(settings, name) != getattr(self._settings, name)]
        if fixed:
            self._log.warning("reload (%s): what else has changed needs a restart: %s", reason, ", ".join(fixed))
        self._settings = settings

    async def _watch_config(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(CONFIG_CHECK_S)
            mark = await loop.run_in_executor(None, _file_mark, self._settings.config_path)
            if mark != self._config_seen:
                self._config_seen = mark
                self.reload("the configuration file has changed")

    def _guard(self, what: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something for as long as the proxy runs; should it fail, say so and stop instead of limping on."""
        task = asyncio.ensure_future(work)

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self._log.critical("%s has failed; stopping", what, exc_info=error)
                self._stop.set()

        task.add_done_callback(ended)
        return task


def run(settings: ServiceSettings, load: Load) -> None:
    """Run a proxy until it is told to stop; SettingsError where an address or a port cannot be had."""
    logging.basicConfig(
        level=settings.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    sidecar = settings.data_plane.sidecar
    if sidecar is not None and not is_own_host(sidecar.local.host):
        raise SettingsError(
            f"--local-backend: expected an address of this machine, such as 127.0.0.1:{sidecar.local.port}, "
            f"found {sidecar.local}"
        )
    listener = bind("listen", settings.listen)
    admin_listener = bind("admin", settings.admin) if settings.admin is not None else None

    async def main() -> None:
        await App(settings, load).run(listener, admin_listener)

    uvloop.run(main())


def _file_mark(path: str) -> tuple[int, int, int] | None:
    """Give what changes when a file does; None where there is no file."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size
