"""The settings of the running proxy, in groups; every field says its unit and why its default is what it is."""

from dataclasses import dataclass, field, replace
from typing import Literal

from stickyproxy.core.access_log import LogFormat
from stickyproxy.core.affinity import HashKey
from stickyproxy.core.cookies import CookieSettings
from stickyproxy.core.endpoint_slices import ServiceRef
from stickyproxy.core.probes import PROBERS
from stickyproxy.core.tls import TlsFiles
from stickyproxy.core.values import PRIVATE_NETWORKS, Address, Network


@dataclass(frozen=True, slots=True)
class AffinitySettings:
    """How a browser is bound to a backend."""

    hash_key: HashKey | None = None
    """The key of `--affinity hash`; None for `--affinity cookie`."""
    cookie: CookieSettings = field(default_factory=CookieSettings)
    secrets: tuple[bytes, ...] = field(default=(), repr=False)
    """Keys of the tokens: the first signs, all verify."""
    hold_s: float = 3.0
    """How long a request to a paused backend that refuses is held, and a navigation or a socket waits for a backend
    that leaves its connection attempt unanswered: NiceGUI's reconnect_timeout, after which the page's state is gone
    anyway."""
    page_token: bool = False
    """Add the token to the page's own socket parameters, for browsers that hold no cookies."""
    page_ttl_s: float = 600.0
    """How long a page without a socket is remembered: far longer than NiceGUI's default reconnect_timeout of 3 s, since
    apps raise it; an entry costs some 300 bytes."""
    page_limit: int = 100_000
    """Most pages remembered."""
    file_limit: int = 10_000
    """Most files remembered that pages show; an entry costs some 200 bytes."""
    slow_start_s: float = 30.0
    """How long a backend that came later takes to its full share of new sessions: imports and caches warm up."""


@dataclass(frozen=True, slots=True)
class TimeSettings:
    """Limits of time, in seconds."""

    connect_s: float = 5.0
    """A backend in the same cluster answers a connection attempt in milliseconds; a lost SYN is sent again after 1
    and 3 seconds."""
    response_s: float = 300.0
    """From the request's end to the response's head; long, since a slow report is still somebody's work."""
    head_s: float = 10.0
    """From a request head's first byte to its last."""
    body_s: float = 60.0
    """Without a byte of a request's body, or with a client that takes no byte of the response; and the time over which
    `LimitSettings.body_rate` is judged."""
    idle_s: float = 75.0
    """Of a kept-alive client connection without a request; longer than the 60 s of common load balancers, so that they
    close first and never send into a closing connection."""
    fresh_s: float = 1.0
    """A connection that has been idle for less is not closed to make room for others: who has just connected, or just
    been answered, is about to ask, and might not ask again."""
    upstream_idle_s: float = 4.0
    """Of a pooled backend connection; below uvicorn's 5 s, so that we close first."""
    tunnel_idle_s: float = 0.0
    """Of a tunnel without a byte in either direction; 0: for ever. Off, since what is silent may be meant to be:
    NiceGUI beats every 4 s, other apps need not."""
    linger_s: float = 2.0
    """How long bytes of a refused request are read and dropped, so that the client sees the answer and not a reset."""
    lost_s: float = 30.0
    """After which a page that does not come back counts as lost; NiceGUI's client tries again every 1 to 5 s."""
    sweep_s: float = 1.0
    """Between two looks at all deadlines; a deadline is met this much late at the most."""


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """Limits of size and number."""

    head_bytes: int = 65536
    """Of a request's or a response's head, start line included."""
    headers: int = 128
    """Header lines of a request."""
    idle_upstreams: int = 128
    """Idle connections kept for each backend."""
    interim_responses: int = 32
    """1xx responses before the final one."""
    body_rate: int = 100
    """Bytes in a second, on average over `TimeSettings.body_s`, that a client must send of a body, or take of an answer
    that waits for it. Far below any network, and enough that nobody can hold a connection for days by a byte a
    minute. 0: any rate."""
    buffered_bytes: int = 32 << 20
    """Waiting in memory for slow clients and backends, all together. A slow download holds some 100 KiB, so that this
    is enough for some two hundred that are slow in the very same moment."""
    requests: int = 100_000
    """Of one client connection, which then ends with an answer: connections that never end would keep balancers from
    finding new proxies. 0: any number."""
    pending: int = 1024
    """Requests that wait for the beginning of one backend's answer; long polls and sockets do not count. Where so many
    wait, the app is stuck, and another would wait in vain. 0: any number."""
    connections: int = 0
    """Client connections, tunnels included; 0: what each process's limit of open files allows, up to
    `core.places.MOST_CONNECTIONS`."""
    connections_per_client: int = 0
    """Of one address; 0: any number, since behind an address may stand a whole company, or an ingress that is not
    known to be one. Trusted proxies are never counted. Each worker counts by itself."""


@dataclass(frozen=True, slots=True)
class HelpSettings:
    """What is done to bring a page up, and for a visitor whose page does not come up."""

    asset_cache_bytes: int = 0
    """Memory for files that NiceGUI marks as immutable; 0: none are kept."""

    reload_limit: int = 10
    """Pages of one visitor and path whose sockets are refused within 20 s before the visitor is told; 0: any."""


@dataclass(frozen=True, slots=True)
class ParkingSettings:
    """How long NiceGUI pages are kept alive whose browsers are away, and at what cost."""

    park_s: float = 0.0
    """0: not at all. Off, since a tab that vanishes without a word holds its state in the app for so long."""
    page_bytes: int = 8 << 20
    """Kept for one page: a log that gets five lines a second is sent in some 3 MiB in five minutes, since NiceGUI names
    all of its lines with each new one."""
    total_bytes: int = 128 << 20
    """Kept for all pages together, browsers that are there included: what they have not acknowledged yet."""
    pages: int = 1000
    """Most pages that are parked at the same time."""


@dataclass(frozen=True, slots=True)
class FailureSettings:
    """What is done about backends that fail; they are found by traffic alone."""

    eject_after: int = 3
    """Failures in a row that take a backend out of the running for new sessions; 0: never. Few, since a session that
    is sent to a hanging backend waits, and an ejection too many costs nobody anything."""
    eject_s: float = 5.0
    """A first time out, which doubles each time: a container that is restarted listens again after some seconds."""
    eject_longest_s: float = 120.0
    """The longest time out; at its end one new session tries the backend."""
    retry_share: float = 0.2
    """Of the requests of the last ten seconds, so many may be sent a second time: a few connections die under their
    requests whenever a backend restarts, but where many do, the app fails and more work would not mend it."""
    retry_floor: int = 30
    """So many more in ten seconds: what five browsers have under way as they load a page."""


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """What is answered as a probe on the main port."""

    paths: frozenset[bytes] = frozenset()
    probers: tuple[str, ...] = PROBERS
    ready_needs_backend: bool = False
    """Off: an outage of the app must not also take away the proxy that explains it."""


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is logged of single requests, to standard output."""

    access: LogFormat = LogFormat.OFF
    """Off: a busy proxy would write megabytes a second, and the metrics tell what most people ask."""
    sample: float = 1.0
    """Share of requests that are logged, drawn by lot, each with the tunnel that it becomes: above 0, up to 1."""


@dataclass(frozen=True, slots=True)
class SidecarSettings:
    """The app in the same pod, whose network namespace is ours."""

    local: Address
    """Where it listens: an IP address of this machine or `localhost`, and a port."""
    stuck_after_s: float = 60.0
    """How long a request may be without a first byte, while others queue and nothing else comes from the app, before
    /app/livez fails; far longer than any page takes to build, and than a browser's user waits: what fails loses pages.
    Below response_s, at which a request is given up and could not be seen to wait."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All of the data plane's settings."""

    affinity: AffinitySettings = field(default_factory=AffinitySettings)
    times: TimeSettings = field(default_factory=TimeSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    health: HealthSettings = field(default_factory=HealthSettings)
    help: HelpSettings = field(default_factory=HelpSettings)
    failures: FailureSettings = field(default_factory=FailureSettings)
    parking: ParkingSettings = field(default_factory=ParkingSettings)
    log: LogSettings = field(default_factory=LogSettings)
    sidecar: SidecarSettings | None = None
    """None: the proxy does not stand in a pod of the app."""
    backend_server_name: str = ""
    """What a backend's certificate must name, and is asked by (SNI); empty: the host that it is dialled by."""
    trusted: tuple[Network, ...] = PRIVATE_NETWORKS
    proxy_protocol: bool = False
    """Every connection begins with a header of the PROXY protocol; those of who is not trusted are refused."""
    keepalive_s: float = 15.0
    """Idle seconds before TCP keep-alive probes begin, on both legs (0: none): below any middlebox's idle time-out."""
    stall_log_s: float = 1.0
    """After which an event loop that does not turn is logged with its stack (0: never): so long that no busy machine
    fills the log, and far below the 6 s after which pages lose their heartbeat."""


def share_of(settings: Settings, workers: int) -> Settings:
    """Give the settings of one of several workers: what is a bound for all of them together is divided."""
    return replace(
        settings,
        limits=replace(
            settings.limits,
            connections=-(-settings.limits.connections // workers),
            buffered_bytes=settings.limits.buffered_bytes // workers,
            pending=-(-settings.limits.pending // workers),
        ),
        help=replace(settings.help, asset_cache_bytes=settings.help.asset_cache_bytes // workers),
        failures=replace(settings.failures, retry_floor=-(-settings.failures.retry_floor // workers)),
    )


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """What stands around the data plane: ports, discovery, the end."""

    listen: Address
    admin: Address | None
    """None: no admin port at all."""
    backends: tuple[Address, ...] = ()
    dns: Address | None = None
    dns_interval_s: float = 5.0
    service: ServiceRef | None = None
    """The Kubernetes Service whose EndpointSlices are followed; of `backends`, `dns` and `service` one is given."""
    shutdown_delay_s: float = 5.0
    """Between SIGTERM and the end of accepting: load balancers learn within seconds that this proxy is leaving, and
    send it visitors until then."""
    drain_timeout_s: float = 20.0
    """For open work after that; both together stay below Kubernetes' default grace period of 30 s."""
    tls: TlsFiles = field(default_factory=TlsFiles)
    """Where the certificates are for both sides; their contents are read again when they change."""
    workers: int = 1
    """Processes that serve; 1: the data plane stands in the only one."""
    config_path: str = ""
    log_level: str = "info"
    log_format: Literal["text", "json"] = "text"
    admin_actions: bool = True
    """Whether backends can be drained by the admin port."""
    data_plane: Settings = field(default_factory=Settings)
