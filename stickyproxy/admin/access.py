"""Who may order something by the admin port: a browser only for a person who looks at this very port's own page.

The port asks for no password, so what a browser sends could be made by any page that its user has open elsewhere.
Laws: a request that is no browser's is its sender's own; one of a browser must come from a page of this origin (Fetch
Metadata's Sec-Fetch-Site, else RFC 6454's Origin), under a name that nobody outside can lead here (DNS rebinding).
"""

import re
from collections.abc import Mapping
from ipaddress import ip_address

_PRIVATE_NAMES = (".localhost", ".svc", ".local", ".internal", ".home.arpa")
"""Ends of names that no public resolver answers for (RFC 6761, RFC 6762, RFC 8375, and those of clusters)."""


def refusal(headers: Mapping[str, str], *, hook: bool) -> str:
    """Say why a request may not order anything; empty where it may. hook: it asks by a URL alone, as for /drain.

    headers: with names in any case, as aiohttp gives them.
    """
    if not _is_browsers(headers):
        return ""
    if hook:
        return (
            "expected a hook, curl or `stickyproxy drain`, found a browser, which any page could make ask this; "
            "the dashboard at / has a button"
        )
    site, origin, host = headers.get("Sec-Fetch-Site", ""), headers.get("Origin", ""), headers.get("Host", "")
    if site and site != "same-origin":
        return f"expected a request from the dashboard itself, found a {_shown(site)} one (Sec-Fetch-Site)"
    if origin.partition("://")[2].lower() != host.lower():
        return f"expected a request from the dashboard itself, found one of the origin {_shown(origin or 'none')}"
    if not _is_private(host):
        return (
            f"expected an IP address, localhost or a name of a private network, found {_shown(host)}, which anybody "
            "could lead here; use `kubectl port-forward`, an SSH tunnel, or `stickyproxy drain`"
        )
    return ""


def _is_browsers(headers: Mapping[str, str]) -> bool:
    return "Origin" in headers or "Sec-Fetch-Site" in headers or headers.get("User-Agent", "").startswith("Mozilla/")


def _is_private(host: str) -> bool:
    name = re.sub(r":[0-9]+\Z", "", host.lower())
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return bool(re.match(r"[a-z0-9-]+\Z", name)) or name.endswith(_PRIVATE_NAMES)
    return True


def _shown(text: str) -> str:
    return re.sub(r"[^!-~]", "?", text[:100])
