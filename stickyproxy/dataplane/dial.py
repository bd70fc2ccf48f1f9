"""Open a connection to a backend, and hold on for one that is paused and may come back."""

import asyncio
import errno
from functools import partial
from typing import TYPE_CHECKING

from stickyproxy.core import faults
from stickyproxy.core.backends import Cause, Phase
from stickyproxy.core.faults import Fault
from stickyproxy.dataplane.secure_upstream import HandshakeError, connect_securely
from stickyproxy.dataplane.upstream import Upstream

if TYPE_CHECKING:
    from stickyproxy.dataplane.pool import Pool
    from stickyproxy.dataplane.proxy import Proxy

_NOT_THE_BACKENDS_FAULT = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))

_HOLD_STEP_S = 0.25
"""Longest wait between two attempts on a held request; a new snapshot ends it sooner."""


class UnreachableError(Exception):
    """The backend cannot be reached; nothing was sent, so the request may go to another. Else `fault` is the answer."""

    def __init__(self, problem: OSError) -> None:
        super().__init__(str(problem))
        self.cause, self.fault = Cause.REFUSED, faults.CONNECT_REFUSED
        if isinstance(problem, TimeoutError):
            self.cause, self.fault = Cause.TIMEOUT, faults.CONNECT_TIMEOUT
        elif isinstance(problem, HandshakeError):
            self.fault = faults.BACKEND_TLS


class ExhaustedError(Exception):
    """The proxy cannot open connections, which says nothing about any backend; `fault` is the answer to give."""

    fault: Fault = faults.OUT_OF_RESOURCES


async def dial(proxy: "Proxy", pool: "Pool", patience_s: float) -> Upstream:
    """Open a connection to a pool's backend.

    patience_s: how long an attempt may go without an answer. A paused backend that refuses is tried again for `--hold`
    seconds, as long as it is listed. Raises UnreachableError or ExhaustedError.
    """
    hold_until = proxy.time() + proxy.settings.affinity.hold_s if pool.backend.phase is Phase.PAUSED else 0.0
    attempt_s = patience_s
    while True:
        proxy.counters.dials += 1
        pool.dialling += 1
        upstream = Upstream(pool)
        try:
            async with asyncio.timeout(attempt_s):
                if proxy.backend_tls is None:
                    await proxy.loop.create_connection(partial(_same, upstream), *pool.backend.address)
                else:
                    name = proxy.settings.backend_server_name or pool.backend.address.host
                    await connect_securely(proxy, upstream, proxy.backend_tls, name)
        except OSError as error:  # TimeoutError is one
            problem = error
        except asyncio.CancelledError:
            pool.upstreams.discard(upstream)
            raise
        except UnicodeError as error:  # what the resolver makes of a name that cannot be one
            problem = OSError(str(error))
        else:
            proxy.failures.reached(pool)
            proxy.tune(upstream.transport)
            return upstream
        finally:
            pool.dialling -= 1
        pool.upstreams.discard(upstream)  # uvloop tells it of no end if it has only just been told of its beginning
        if problem.errno in _NOT_THE_BACKENDS_FAULT:
            proxy.log.error("cannot connect to backend %s: %s; raise the limit of open files", pool.backend, problem)
            raise ExhaustedError
        left = hold_until - proxy.time()
        if left > 0:
            await proxy.snapshot_change(min(left, _HOLD_STEP_S))
            backend = proxy.snapshot.by_identity.get(pool.backend.identity)
            if backend is not None:
                pool = proxy.pool_of(backend)  # it may have come back at another address
                attempt_s = min(patience_s, max(hold_until - proxy.time(), _HOLD_STEP_S))
                continue
        proxy.failures.unreachable(pool, problem)
        raise UnreachableError(problem)


def _same(upstream: Upstream) -> Upstream:
    return upstream
