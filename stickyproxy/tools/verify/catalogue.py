"""All findings that a run can come to: id, weight, what it is called, and what to do about it. Data, no decisions.

Laws: an id is the anchor of its section in docs/verify.md (a test holds both together); ids are never given a second
meaning; the fix is one or two sentences that a person can act on, and names no client id, cookie value or password.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

DOCUMENT: Final = "docs/verify.md"


class Weight(Enum):
    """What a finding means for the exit code."""

    FAULT = "fault"  # users lose pages or cannot work: exit code 1
    DOUBT = "doubt"  # it cannot be told whether sessions are sticky: exit code 2
    WARNING = "warning"  # something else that will hurt some day
    NOTE = "note"  # good to know


@dataclass(frozen=True, slots=True)
class Kind:
    """What a finding is, whatever its evidence."""

    weight: Weight
    title: str
    fix: str


_F, _D, _W, _N = Weight.FAULT, Weight.DOUBT, Weight.WARNING, Weight.NOTE

KINDS: Final[Mapping[str, Kind]] = {
    "socket-elsewhere": Kind(
        _F,
        "a page's socket reached another process than the one that built the page",
        "Keep each browser on one replica: put stickyproxy before the replicas, or switch on cookie affinity in what "
        "stands before them. sessionAffinity: ClientIP is no help behind an ingress.",
    ),
    "reload-loop": Kind(
        _F,
        "visitors have to load the page again and again",
        "It is the consequence of the above: each refused socket makes the page reload, until luck has it.",
    ),
    "reconnect-lost": Kind(
        _F,
        "after a cut, a page reconnected to another process and was lost",
        "The affinity must outlive a connection: by a cookie or by the page itself, not by the connection. Where the "
        "app sets reconnect_timeout below a second, raise that.",
    ),
    "poll-split": Kind(
        _F,
        "polls of one page were spread over several processes",
        "Where WebSockets are blocked NiceGUI polls, and each poll must reach the same replica: affinity by cookie.",
    ),
    "rare-refusal": Kind(
        _D,
        "a socket was refused, and this did not happen again",
        "A replica may have ended or been replaced meanwhile. Run it again while nothing is rolled out, with more "
        "--visitors.",
    ),
    "few-visitors": Kind(
        _D,
        "so few sockets prove nothing",
        "Give more --visitors: with 8, chance cannot make an app without affinity look sticky.",
    ),
    "no-upgrade": Kind(
        _F,
        "WebSockets are not let through",
        "Pass Upgrade and Connection on, by HTTP/1.1 to the app.",
    ),
    "socket-silent": Kind(
        _F,
        "a WebSocket opened, but nothing came on it",
        "Look at what stands before the app for something that inspects or buffers WebSockets, and at the app's log.",
    ),
    "socket-buffered": Kind(
        _F,
        "bytes on the WebSocket are held back on the way",
        "Switch off buffering, and any inspection of content, for upgraded connections.",
    ),
    "socket-broken": Kind(
        _F,
        "sockets could not be opened",
        "Look at the log of what stands before the app: the connection ended before an answer.",
    ),
    "socket-ended": Kind(
        _W,
        "a socket in use was ended by the other side",
        "The app or a proxy may have been restarted. If it comes again, look for a limit on the age of connections.",
    ),
    "idle-cut": Kind(
        _F,
        "a silent WebSocket is cut after a fixed time, shorter than the app may be silent",
        "Raise the time that a WebSocket may be silent to a minute at least.",
    ),
    "idle-cut-long": Kind(
        _N,
        "a silent WebSocket is cut after a fixed time, longer than the app is ever silent",
        "Nothing to do, while the app's reconnect_timeout (and so its heartbeat) stays as it is.",
    ),
    "idle-unmeasured": Kind(
        _N,
        "how long a WebSocket may be silent was not measured",
        "Mend the affinity first, and run it again; or name a WebSocket of the app that stays silent by --ws-path.",
    ),
    "age-cut": Kind(
        _F,
        "sockets are cut at a fixed age, though they are in use",
        "Take the limit on the lifetime of connections or requests off for WebSockets.",
    ),
    "assets-split": Kind(
        _F,
        "a file of the page was answered 404 by one process and found by another",
        "Files that a page needs must be asked of the replica that built it (or, as stickyproxy does, of the others "
        "where one does not have them).",
    ),
    "assets-missing": Kind(
        _F,
        "files that NiceGUI's page needs are not found",
        "All paths below /_nicegui/ must reach the app, whatever their ending: look for a rule that takes them away.",
    ),
    "app-files-missing": Kind(
        _W,
        "files that the app names are not found",
        "Look at how the page names them: it is the app's own matter, unless a rule on the way takes them away.",
    ),
    "assets-immutable": Kind(
        _F,
        "an error was marked to be kept for long",
        "NiceGUI marks each answer below /_nicegui/ as immutable, errors too, so a browser or CDN keeps them for a "
        "year. Let no error below /_nicegui/ out with that header, and empty the CDN's cache.",
    ),
    "prefix-lost": Kind(
        _F,
        "the page does not know the path below which it is published",
        "The proxy that takes the path off must say so: X-Forwarded-Prefix with that path, in every request.",
    ),
    "redirect-prefix": Kind(
        _W,
        "a redirect of the app leaves the path below which it is published",
        "Start the app with that root_path (uvicorn), or let the proxy rewrite Location.",
    ),
    "redirect-scheme": Kind(
        _W,
        "a redirect of the app leads from https to http",
        "The app must believe X-Forwarded-Proto: FORWARDED_ALLOW_IPS for uvicorn; and the proxy must set it.",
    ),
    "redirect-host": Kind(
        _W,
        "a redirect of the app leads to another host",
        "The proxy must pass Host on as the browser sent it.",
    ),
    "scheme-lost": Kind(
        _F,
        "the way to the page leads from https to http",
        "The app must believe X-Forwarded-Proto: FORWARDED_ALLOW_IPS for uvicorn; and the proxy must set it.",
    ),
    "plain-links": Kind(
        _W,
        "a page that came by https names files or links of its own by http",
        "The app must believe X-Forwarded-Proto: FORWARDED_ALLOW_IPS for uvicorn; or name them without a scheme.",
    ),
    "upload-limit": Kind(
        _F,
        "an upload of the size asked for is refused",
        "Raise the largest body that may pass, and any limit in the app.",
    ),
    "upload-broken": Kind(
        _F,
        "an upload of the size asked for breaks off",
        "Look at the limits of size and time for requests in what stands before the app.",
    ),
    "request-buffered": Kind(
        _N,
        "uploads are taken in whole before the app hears of them",
        "It costs time and disk for large uploads, and the browser's progress bar is wrong; "
        "switch request buffering off, if that matters.",
    ),
    "response-buffered": Kind(
        _F,
        "a streamed answer is held back until its end",
        "Switch response buffering off for the app.",
    ),
    "stream-unclear": Kind(
        _N,
        "the streamed answer says nothing about buffering",
        "Give --stream-path an address that answers 200 and streams something now and then for two seconds or more.",
    ),
    "cookie-insecure": Kind(
        _W,
        "a cookie of a page that came by https lacks Secure",
        "Set Secure, so that the cookie never travels by http; for NiceGUI's own: "
        "session_middleware_kwargs={'https_only': True}.",
    ),
    "cookie-samesite": Kind(
        _W,
        "a cookie's SameSite does not fit the way the page is served",
        "In frames of other sites: SameSite=None with Secure (and Partitioned). Everywhere else: SameSite=Lax.",
    ),
    "cookie-dropped": Kind(
        _W,
        "a cookie is Secure on a page that came by http, so browsers drop it",
        "Serve the page by https, or set the cookie without Secure there.",
    ),
    "probe-page": Kind(
        _N,
        "health probes reach the app and make it build a page each time",
        "Point probes at a plain route or at the port alone; stickyproxy answers known probers by itself.",
    ),
    "page-errors": Kind(
        _F,
        "loading the page fails at times",
        "Look at the log of what answered: a replica that is down, or is not ready, still gets visitors.",
    ),
    "unreachable": Kind(
        _D,
        "the page could not be loaded",
        "Check the address from a browser on this machine; for a private certificate give --ca FILE or --insecure, for "
        "a slow page a longer --timeout.",
    ),
    "login": Kind(
        _D,
        "a login stands in the way",
        "Log in with a browser and give what it then sends: --cookie NAME=VALUE or --header 'NAME: VALUE'; for "
        "passwords by HTTP --user NAME.",
    ),
    "login-checked": Kind(
        _N,
        "what was checked is the app's login page",
        "It is NiceGUI's too, so affinity shows there as well. For the pages behind it give --cookie NAME=VALUE.",
    ),
    "not-nicegui": Kind(
        _D,
        "this is no page of NiceGUI, so it cannot be told whether its sessions are sticky",
        "Give the address of a page that NiceGUI built; for a WebSocket of any app give --ws-path PATH.",
    ),
    "one-address": Kind(
        _N,
        "no sign of a second replica",
        "Affinity by the client's address, or a single replica, cannot be told from affinity here: all visitors of a "
        "run come from one address. Run it from a second machine too, if that matters.",
    ),
    "several-replicas": Kind(
        _N,
        "visitors were spread over several replicas and each kept its own",
        "Nothing to do.",
    ),
}  # fmt: skip

SERVERS: Final[Mapping[str, str]] = {
    "nginx": "nginx",
    "openresty": "nginx",
    "caddy": "caddy",
    "envoy": "envoy",
    "istio-envoy": "envoy",
    "awselb": "aws",
    "google frontend": "gcp",
    "microsoft-azure-application-gateway": "azure",
    "cloudflare": "cloudflare",
}
"""By the beginning of `Server`, in lower case: whose configuration a fix can be told for."""

SPECIAL_FIXES: Final[Mapping[tuple[str, str], str]] = {
    ("no-upgrade", "nginx"): "nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
    "proxy_set_header Connection $connection_upgrade;",
    ("no-upgrade", "envoy"): "Envoy: upgrade_configs: [{upgrade_type: websocket}].",
    ("no-upgrade", "cloudflare"): "Cloudflare: switch on WebSockets under Network.",
    ("no-upgrade", "aws"): "AWS: a Classic Load Balancer needs a TCP listener; an Application Load Balancer passes it.",
    ("idle-cut", "nginx"): "nginx: proxy_read_timeout and proxy_send_timeout; ingress-nginx: "
    "nginx.ingress.kubernetes.io/proxy-read-timeout.",
    ("idle-cut", "envoy"): "Envoy: idle_timeout of the route and stream_idle_timeout.",
    ("idle-cut", "aws"): "AWS: idle_timeout.timeout_seconds of the load balancer.",
    ("idle-cut", "gcp"): "GCP: timeoutSec of the BackendConfig.",
    ("idle-cut", "azure"): "Azure: requestTimeout of the backend HTTP settings.",
    ("age-cut", "gcp"): "GCP: timeoutSec of the BackendConfig counts for the whole WebSocket.",
    ("age-cut", "envoy"): "Envoy: max_stream_duration and the route's timeout.",
    ("socket-elsewhere", "nginx"): "ingress-nginx: nginx.ingress.kubernetes.io/affinity: cookie and "
    "affinity-mode: persistent.",
    ("socket-elsewhere", "aws"): "AWS: stickiness.enabled=true on the target group.",
    ("socket-elsewhere", "gcp"): "GCP: sessionAffinity GENERATED_COOKIE in the BackendConfig.",
    ("socket-elsewhere", "caddy"): "Caddy: lb_policy cookie in reverse_proxy.",
    ("upload-limit", "nginx"): "nginx: client_max_body_size; ingress-nginx: "
    "nginx.ingress.kubernetes.io/proxy-body-size.",
    ("response-buffered", "nginx"): "nginx: proxy_buffering off; or X-Accel-Buffering: no in the answer.",
    ("request-buffered", "nginx"): "nginx: proxy_request_buffering off.",
}
"""What is added to a fix where the server before the app has said its name."""
