"""Rules about what an answer to a request shows: the way to the page, files, cookies, redirects, uploads, probes."""

from collections import Counter
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from stickyproxy.tools.verify.findings import Finding, Rule, found, in_bytes
from stickyproxy.tools.verify.seen import Seen

HELD_S: Final = 1.0
"""A streamed answer that came whole, after so long without a byte, was held back."""

TOGETHER_S: Final = 0.1
"""Pieces that came within so long came together."""


def reached(seen: Seen) -> Iterator[Finding]:
    """Find what kept us from the page."""
    if seen.problem:
        yield found(seen, "unreachable", seen.problem)
    landing = seen.landing
    if landing is None:
        return
    if landing.login:
        yield found(seen, "login", landing.login)
    elif landing.status >= 400:
        reason = f" (stickyproxy's reason: {landing.reason})" if landing.reason else ""
        reason = reason or (", with NiceGUI's own page for errors" if landing.version else "")
        yield found(seen, "unreachable", f"{landing.url} answered {landing.status}{reason}")
    elif landing.status >= 300 and not landing.version:
        yield found(seen, "unreachable", f"{landing.url} redirects without an end, or to no address")
    elif not landing.version and not seen.plain:
        yield found(seen, "not-nicegui", f"{landing.url} answered {landing.status} without NiceGUI's marks")
    if landing.login_page:
        yield found(seen, "login-checked", f"the address led to {urlsplit(landing.url).path}")


def plain_sockets(seen: Seen) -> Iterator[Finding]:
    """Doubt the affinity of an app of which only a WebSocket was seen."""
    if seen.plain and not seen.attempts and not (seen.landing and seen.landing.login):
        yield found(seen, "not-nicegui", "its WebSocket was checked; which process holds a session cannot be seen")


def loads(seen: Seen) -> Iterator[Finding]:
    """Find loads of the page that failed."""
    failed = [load for load in seen.loads if load.status == 0 or load.status >= 400]
    if len(failed) >= 2:
        causes = Counter(load.problem or f"answered {load.status}" for load in failed)
        yield found(
            seen, "page-errors",
            *(f"{count} of {len(seen.loads)} loads: {cause}" for cause, count in causes.most_common(3)),
        )  # fmt: skip


def way(seen: Seen) -> Iterator[Finding]:
    """Find a way to the page that leaves https, and links that do."""
    for hop in seen.hops:
        if hop.source.startswith("https:") and hop.target.startswith("http:"):
            yield found(seen, "scheme-lost", f"{hop.source} redirects ({hop.status}) to {hop.target}")
    if seen.https and seen.landing and (links := seen.landing.plain_links):
        yield found(seen, "plain-links", *links[:3])


def prefix(seen: Seen) -> Iterator[Finding]:
    """Find a page that looks for its socket and files in the wrong place."""
    at = seen.prefix
    if at is not None and at.works is not None and at.works != at.told:
        yield found(
            seen, "prefix-lost",
            f"the page looks for its socket at {at.told}/_nicegui_ws/, which answers {at.told_answer}; it is at "
            f"{at.works}/_nicegui_ws/",
        )  # fmt: skip


def files(seen: Seen) -> Iterator[Finding]:
    """Find files of the page that were not there, always or at times."""
    split = [f for f in seen.files if min(f.statuses) < 400]
    missing = [f for f in seen.files if min(f.statuses) >= 400 and f.own]
    others = [f for f in seen.files if min(f.statuses) >= 400 and not f.own]
    for id_, some in (("assets-split", split), ("assets-missing", missing), ("app-files-missing", others)):
        if some:
            first = some[0]
            statuses = ", ".join(map(str, first.statuses))
            yield found(
                seen, id_, f"{len(some)} of {seen.files_asked} files, such as {first.path}: answered {statuses}"
            )
    lasting = [f for f in seen.files if f.immutable]
    if lasting:
        yield found(
            seen, "assets-immutable",
            f"{len(lasting)} of {len(seen.files)} errors, such as that of {lasting[0].path}: browsers keep it",
        )  # fmt: skip


def cookies(seen: Seen) -> Iterator[Finding]:
    """Find cookies whose attributes do not fit the way the page is served."""
    host = urlsplit(seen.landing.url if seen.landing else seen.url).hostname or ""
    local = host == "localhost" or host.endswith(".localhost")  # browsers take Secure cookies from there
    for cookie in seen.cookies:
        if seen.https and not cookie.secure:
            yield found(seen, "cookie-insecure", f"the cookie {cookie.name}")
        elif not seen.https and cookie.secure and not local:
            yield found(seen, "cookie-dropped", f"the cookie {cookie.name}")
        if cookie.samesite.lower() == "none" and not cookie.secure:
            yield found(
                seen, "cookie-samesite", f"the cookie {cookie.name} has SameSite=None without Secure: browsers drop it"
            )
        elif cookie.samesite.lower() != "none" and seen.landing and (sites := seen.landing.frame_ancestors):
            yield found(
                seen, "cookie-samesite",
                f"the page may be shown in frames of {', '.join(sites[:3])}, where browsers do not send the cookie "
                f"{cookie.name} (SameSite={cookie.samesite or 'Lax, by default'})",
            )  # fmt: skip


def redirects(seen: Seen) -> Iterator[Finding]:
    """Find what the app's own redirects have lost."""
    redirect = seen.redirect
    if redirect is None or redirect.target is None:
        return
    source, target = urlsplit(redirect.source), urlsplit(redirect.target)
    evidence = f"{redirect.source} redirects to {redirect.target}"
    if source.scheme == "https" and target.scheme == "http":
        yield found(seen, "redirect-scheme", evidence)
    if source.hostname != target.hostname or (source.scheme == target.scheme and source.port != target.port):
        yield found(seen, "redirect-host", evidence)
    if not target.path.startswith(source.path):
        yield found(seen, "redirect-prefix", evidence)


def uploads(seen: Seen) -> Iterator[Finding]:
    """Find limits of uploads, and requests that are taken in whole."""
    upload = seen.upload
    if upload is not None and upload.status == 413:
        evidence = [f"{in_bytes(upload.size_bytes)} were answered 413"]
        if upload.refused_bytes:
            passes = f"{in_bytes(upload.passes_bytes)} pass, " if upload.passes_bytes else ""
            evidence.append(f"by the declared length alone: {passes}{in_bytes(upload.refused_bytes)} do not")
        yield found(seen, "upload-limit", *evidence)
    elif upload is not None and (upload.status == 0 or upload.status >= 500):
        answer = f"answered {upload.status}" if upload.status else upload.problem
        yield found(seen, "upload-broken", f"{in_bytes(upload.size_bytes)}: {answer}")
    if seen.whole_uploads:
        yield found(seen, "request-buffered", "a request that the app answers by its head alone was answered only "
                    "when its body was whole")  # fmt: skip


def streams(seen: Seen) -> Iterator[Finding]:
    """Find a streamed answer that was held back."""
    stream = seen.stream
    if stream is None:
        return
    pieces = stream.pieces
    if stream.status != 200 or not pieces:
        yield found(seen, "stream-unclear", f"answered {stream.status} with {len(pieces)} pieces")
    elif pieces[-1] - pieces[0] > TOGETHER_S * 2:
        return  # it came in pieces
    elif pieces[0] >= HELD_S:
        yield found(seen, "response-buffered", f"nothing came for {pieces[0]:.1f} s, then all of it at once")
    else:
        yield found(seen, "stream-unclear", f"it was over after {pieces[-1]:.1f} s")


def probes(seen: Seen) -> Iterator[Finding]:
    """Find probers for whom the app builds pages."""
    building = [probe.agent for probe in seen.probes if probe.page]
    if building:
        yield found(seen, "probe-page", f"a GET by {', '.join(building)} was answered with a page that the app built")


FIRST: Final[tuple[Rule, ...]] = (reached, plain_sockets, prefix, loads, way)
"""What explains the rest."""

RULES: Final[tuple[Rule, ...]] = (files, streams, uploads, redirects, cookies, probes)
