"""Backends by `--kubernetes-service`: the EndpointSlices of a Service, listed once and then watched.

Laws: every doubt ends in a fresh list: an error, a closed or silent stream, garbage, a resource version that is too old
(410); a list replaces all that was known, in one step. A lost API server or Service empties nothing: the last good set
stays in force and `status` says what is wrong. Credentials are read anew with every list, so that rotated ones are
taken up. This module alone imports `kubernetes`, which costs 50 MB.
"""

import asyncio
import json
import logging
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import aiohttp
from aiohttp.http_exceptions import LineTooLong
from kubernetes.aio import client, config
from kubernetes.aio.config.incluster_config import InClusterConfigLoader

from stickyproxy.core.backends import Backend
from stickyproxy.core.endpoint_slices import (
    BadSliceError,
    EndpointSlice,
    PortError,
    ServiceRef,
    parse_items,
    parse_slice,
    reduce_slices,
)
from stickyproxy.core.status import DiscoveryStatus
from stickyproxy.discovery import Apply

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its credentials."""

LIST_S = 15.0
"""Seconds for a whole list, and for a watch to begin."""

WATCH_S = 300
"""Seconds after which the API server is asked to end a watch (it gets up to twice as many, by lot): every proxy lists
afresh now and then, and not all at the same moment."""

SILENCE_S = 90.0
"""Seconds without a byte after which a watch counts as dead: the API server sends a bookmark about every minute."""

SHORTEST_BACKOFF_S, LONGEST_BACKOFF_S = 0.2, 10.0
"""Between two lists: doubled with every failure, and at the end so short that an API server that has come back is
noticed soon."""

STABLE_S = 10.0
"""Seconds after which a watch has worked, so that the next failure is a first one again."""

_GARBAGE = (ValueError, KeyError, TypeError, RecursionError)
"""What reading an answer ends in that is none of the API's."""

_USER = re.compile(r'User "system:serviceaccount:([a-z0-9.-]+):([a-z0-9.-]+)"')


class DiscoveryError(Exception):
    """Why there is no list; the text is one line that says what is missing and what mends it."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class StaleError(Exception):
    """The resource version is too old to watch from (410): nothing is wrong, only a list is due."""


@dataclass(frozen=True, slots=True)
class Access:
    """A client of the API server, and the namespace that counts where none is given."""

    client: client.ApiClient
    namespace: str

    @property
    def host(self) -> str:
        """Give the API server's address, for people."""
        return str(self.client.configuration.host)


Connect = Callable[[], Awaitable[Access]]
"""Reads credentials afresh and makes a client of them; raises DiscoveryError."""


async def connect(folder: Path = SERVICE_ACCOUNT) -> Access:
    """Use the kubeconfig of $KUBECONFIG, else the pod's service account (`folder`), else ~/.kube/config."""
    found = client.Configuration()
    kubeconfig = os.environ.get("KUBECONFIG", "")
    path = kubeconfig or str(Path.home() / ".kube" / "config")
    token = folder / "token"
    try:
        if not kubeconfig and token.exists():
            InClusterConfigLoader(str(token), str(folder / "ca.crt"), try_refresh_token=False).load_and_set(found)
            namespace = (folder / "namespace").read_text("utf-8").strip()
        elif not _any_file(path):
            raise FileNotFoundError(f"no file {path}" if kubeconfig else f"neither {token} nor {path}")
        else:
            async with asyncio.timeout(LIST_S):  # it may have to run a command for a token
                await config.load_kube_config(path, client_configuration=found, persist_config=False)
            _, context = config.list_kube_config_contexts(path)
            namespace = str(context["context"].get("namespace") or "default")
        for name, value in found.api_key.items():
            found.api_key[name] = value.strip()  # a line's end behind a token is no part of it
        return Access(client.ApiClient(found), namespace)
    except Exception as error:  # noqa: BLE001  whatever the loaders make of broken files: all of it is told
        raise DiscoveryError(
            "credentials",
            f"expected the pod's service account or a kubeconfig, found {_one_line(error)}; in a cluster give the pod "
            "a serviceAccountName and automountServiceAccountToken: true, elsewhere set KUBECONFIG",
        ) from None


class KubernetesDiscovery:
    """Lists and watches the EndpointSlices of one Service.

    random: for jitter. shortest_backoff_s, silence_s: see the constants; tests have less patience.
    """

    def __init__(
        self,
        service: ServiceRef,
        apply: Apply,
        random: Random,
        connect: Connect = connect,
        *,
        shortest_backoff_s: float = SHORTEST_BACKOFF_S,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._service = service
        self._apply = apply
        self._random = random
        self._connect = connect
        self._shortest_backoff_s = shortest_backoff_s
        self._silence_s = silence_s
        self._slices: dict[str, EndpointSlice] = {}
        self._applied: list[Backend] | None = None
        self._failures = 0
        self._problem = DiscoveryError("starting", "not listed yet")
        self._healthy = False
        self._time = asyncio.get_running_loop().time
        self._confirmed = self._time()  # or when it began
        self._errors = 0
        self._wake = asyncio.Event()
        self._patience: asyncio.Timeout | None = None  # of the watch that is running
        self._log = logging.getLogger("stickyproxy.discovery")

    @property
    def status(self) -> DiscoveryStatus:
        """Say which Service is followed and what is wrong, with the command that mends it."""
        source = f"Kubernetes Service {self._service}"
        synced, age_s = self._applied is not None, self._time() - self._confirmed
        if self._healthy:
            return DiscoveryStatus(source, "", synced=synced, age_s=age_s, errors=self._errors)
        return DiscoveryStatus(source, str(self._problem), self._problem.reason, synced, age_s, self._errors)

    def refresh(self) -> None:
        """List now, whatever is being waited for."""
        self._wake.set()
        if self._patience is not None:
            self._patience.reschedule(asyncio.get_running_loop().time())
            self._patience = None  # one that has ended cannot be ended again

    async def run(self) -> None:
        """List and watch until cancelled."""
        while True:
            self._wake.clear()
            try:
                await self._follow()
            except StaleError:
                self._log.debug("Service %s: the watch's resource version is too old; listing again", self._service)
            except DiscoveryError as problem:
                self._note(problem)
            except Exception:  # noqa: BLE001  a fault of ours must not cost anybody the backends that are known
                self._log.exception("Service %s: discovery has failed unexpectedly; trying again", self._service)
                self._note(DiscoveryError("fault", "discovery has failed unexpectedly: the log has the details"))
            await self._back_off()

    async def _follow(self) -> None:
        """List, then watch until there is a doubt; DiscoveryError where something is wrong."""
        began: float | None = None
        loop = asyncio.get_running_loop()
        self._failures += 1  # until a watch has worked for long enough
        access = await self._connect()
        if not self._service.namespace:
            self._service = self._service._replace(namespace=access.namespace)
        try:
            version = await self._list(access)
            began = loop.time()
            if not self._wake.is_set():
                await self._watch(access, version)
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is one
            if began is None:
                raise DiscoveryError("unreachable", f"cannot reach the API server {access.host}: {_one_line(error)}") \
                    from None  # fmt: skip
            self._log.debug("Service %s: the watch has ended: %s", self._service, _one_line(error))
        finally:
            if began is not None and loop.time() - began >= STABLE_S:
                self._failures = 0
            await access.client.close()

    async def _ask(self, access: Access, *, watch: bool, version: str = "") -> aiohttp.ClientResponse:
        """Send a request for the Service's slices; DiscoveryError where the answer is not what was asked for."""
        namespace, name, _ = self._service
        seconds = WATCH_S + self._random.randrange(WATCH_S)
        api = client.DiscoveryV1Api(access.client)
        response: aiohttp.ClientResponse = await api.list_namespaced_endpoint_slice_without_preload_content(
            namespace,
            label_selector=f"kubernetes.io/service-name={name}",
            watch=watch,
            allow_watch_bookmarks=watch,
            resource_version=version or None,
            timeout_seconds=seconds if watch else None,
            _request_timeout=float(seconds) + LIST_S,
        )
        if watch and response.status == 410:
            raise StaleError
        if response.status != 200:
            raise self._refusal(access, response.status, await response.text(errors="replace"))
        return response

    async def _list(self, access: Access) -> str:
        """Replace all slices by those of a fresh list and apply it; give its resource version."""
        async with asyncio.timeout(LIST_S):
            async with await self._ask(access, watch=False) as response:
                body = await response.read()
        try:
            found = json.loads(body)
            slices = [parse_slice(item) for item in parse_items(found["items"])]
            version = str(found["metadata"]["resourceVersion"])
        except _GARBAGE as error:
            raise _garbage(access, error) from None
        if not slices:
            raise DiscoveryError("no-service", self._no_service())
        self._slices = {slice_.name: slice_ for slice_ in slices}
        self._reduce()
        self._confirmed = self._time()
        return version

    async def _watch(self, access: Access, version: str) -> None:
        """Follow the changes since a list, until the stream ends or falls silent."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LIST_S):
                response = await self._ask(access, watch=True, version=version)
        except (aiohttp.ClientError, OSError) as error:  # listing works, so backends come, but late
            raise DiscoveryError("unreachable", f"cannot watch at the API server {access.host}: {_one_line(error)}") \
                from None  # fmt: skip
        self._recovered()
        try:
            async with asyncio.timeout(self._silence_s) as patience:
                self._patience = patience
                while not self._wake.is_set() and (line := await _read_line(access, response)).endswith(b"\n"):
                    patience.reschedule(loop.time() + self._silence_s)
                    self._on_event(access, line)
                    self._confirmed = self._time()
        finally:
            self._patience = None
            response.close()

    def _on_event(self, access: Access, line: bytes) -> None:
        """Take one line of a watch."""
        try:
            event = json.loads(line)
            kind, found = event["type"], event["object"]
            if kind == "BOOKMARK":
                return
            if kind == "ERROR":
                code = found["code"]
                if code == 410:
                    raise StaleError
                if not isinstance(code, int):
                    raise BadSliceError(f"expected an error with its code, found {type(code).__name__}")
                raise self._refusal(access, code, json.dumps(found))
            if kind not in ("ADDED", "MODIFIED", "DELETED"):
                raise BadSliceError(f"expected an event of a known type, found {str(kind)[:40]!a}")
            slice_ = parse_slice(found)
        except _GARBAGE as error:
            raise _garbage(access, error) from None
        if kind == "DELETED":
            self._slices.pop(slice_.name, None)
        else:
            self._slices[slice_.name] = slice_
        if not self._slices:
            raise DiscoveryError("no-service", self._no_service())
        self._reduce()
        self._recovered()

    def _reduce(self) -> None:
        """Put in force what the slices say, if it differs from what is."""
        try:
            backends = reduce_slices(self._slices.values(), self._service.port)
        except PortError as error:
            raise DiscoveryError("no-port", f"Service {self._service}: {error}") from None
        if backends != self._applied:
            self._log.info(
                "Service %s has %d backends: %s",
                self._service, len(backends), ", ".join(f"{b} {b.phase.value}" for b in backends[:20]),
            )  # fmt: skip
            self._apply(backends)
            self._applied = backends

    async def _back_off(self) -> None:
        """Wait before the next list, longer with every failure; `refresh` ends it."""
        longest = min(LONGEST_BACKOFF_S, self._shortest_backoff_s * 2 ** min(self._failures, 10))
        try:
            async with asyncio.timeout(longest * self._random.uniform(0.5, 1.0)):
                await self._wake.wait()
        except TimeoutError:
            return  # what we wait for

    def _note(self, problem: DiscoveryError) -> None:
        """Keep a problem for `status`, and log it when it begins or changes."""
        self._errors += 1
        if self._healthy or str(problem) != str(self._problem):
            kept = f"keeping the last {len(self._applied)} backends" if self._applied is not None else "no backends yet"
            self._log.warning("%s; %s", problem, kept)
        self._problem = problem
        self._healthy = False

    def _recovered(self) -> None:
        if not self._healthy:
            self._log.info("Service %s is followed", self._service)
        self._healthy = True

    # What is wrong, for people who do not run clusters for a living.

    def _no_service(self) -> str:
        namespace, name, port = self._service
        return (
            f"Service {self._service} has no EndpointSlices: expected a Service of that name with a selector; look: "
            f"kubectl -n {namespace} get services; make it: "
            f"kubectl -n {namespace} expose deployment YOUR-APP --name={name} "
            f"--port={port if port.isdecimal() else 8080}"
        )

    def _refusal(self, access: Access, status: object, body: str) -> DiscoveryError:
        namespace = self._service.namespace
        if status == 403:
            user = _USER.search(body.replace("\\", ""))
            subject = f"--serviceaccount={user[1]}:{user[2]}" if user else "--user=YOUR-USER"
            return DiscoveryError(
                "forbidden",
                f"may not read EndpointSlices in namespace {namespace} (403); allow it: "
                f"kubectl -n {namespace} create role stickyproxy --verb=get,list,watch "
                f"--resource=endpointslices.discovery.k8s.io && kubectl -n {namespace} create rolebinding stickyproxy "
                f"--role=stickyproxy {subject}",
            )
        if status == 401:
            return DiscoveryError(
                "unauthorized",
                f"the API server {access.host} does not accept our credentials (401): expected a service account that "
                "exists with a token that has not expired, or a current kubeconfig; make the pod anew, or log in again",
            )
        if status == 404:
            return DiscoveryError(
                "unreachable", f"{access.host} knows no EndpointSlices (404): expected a Kubernetes API server, 1.21+"
            )
        return DiscoveryError("unreachable", f"the API server {access.host} answers {status}")


def _any_file(paths: str) -> bool:
    """Say whether one of the files of a $KUBECONFIG exists: the loader of several gives no sensible error for none."""
    return any(Path(path).expanduser().exists() for path in paths.split(os.pathsep) if path)


async def _read_line(access: Access, response: aiohttp.ClientResponse) -> bytes:
    """Read one event of a watch; empty at its end."""
    try:
        return await response.content.readline()
    except (
        ValueError,
        LineTooLong,
    ) as error:  # longer than any slice can be; which of them depends on aiohttp's version
        raise _garbage(access, error) from None


def _garbage(access: Access, error: Exception) -> DiscoveryError:
    what = str(error) if isinstance(error, BadSliceError) else type(error).__name__
    return DiscoveryError("garbage", f"expected EndpointSlices from {access.host}, found something else ({what})")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
