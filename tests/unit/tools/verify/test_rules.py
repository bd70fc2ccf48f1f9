"""Every finding is made by what it is about, and not by what is merely near to it."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from stickyproxy.tools.verify.catalogue import DOCUMENT, KINDS, SPECIAL_FIXES, Weight
from stickyproxy.tools.verify.findings import Verdict, headline, verdict
from stickyproxy.tools.verify.rules import judge
from stickyproxy.tools.verify.seen import (
    Attempt,
    Cookie,
    Echo,
    Ended,
    File,
    Hop,
    Landing,
    Load,
    Outcome,
    Prefix,
    Probe,
    Redirect,
    Round,
    Seen,
    Silence,
    Step,
    Stream,
    Transport,
    Upload,
)

ROOT = Path(__file__).parents[4]
URL = "http://app.test/"
LANDING = Landing(200, URL, version="3.18.0", server="nginx/1.22.1")


def wave(
    number: int,
    round_: Round,
    outcomes: str,
    transport: Transport = "websocket",
    *,
    away_s: float = 0.3,
    status: int = 101,
) -> list[Attempt]:
    """Make a wave of attempts: a accepted, r refused, n not upgraded, s split, m mute, b broken; - is absent."""
    meanings = {
        "a": Outcome.ACCEPTED, "r": Outcome.REFUSED, "n": Outcome.NOT_UPGRADED, "s": Outcome.SPLIT,
        "m": Outcome.SILENT, "b": Outcome.BROKEN,
    }  # fmt: skip
    return [
        Attempt(visitor, round_, number, transport, meanings[letter], 0.01, status, "", away_s)
        for visitor, letter in enumerate(outcomes)
        if letter != "-"
    ]


def sticky(**changes: object) -> Seen:
    """Make what is seen where all is well, but for what is given."""
    seen = Seen(
        URL, 8, landing=LANDING, ping_interval_s=4.0, ping_timeout_s=2.0,
        attempts=[*wave(1, "first", "aaaaaaaa"), *wave(2, "cut", "aaaaaaaa"), *wave(3, "cut", "aaaaaaaa", "polling")],
        loads=[Load(n, 200) for n in range(8)], prefix=Prefix("", "", ""), files_asked=26,
        cookies=[Cookie("SRV", False, "Lax", 2)], echoes=[Echo(n, 0.002) for n in range(8)],
        silences=[Silence(10.0, cut=False)] * 2, redirect=Redirect(f"{URL}_nicegui_ws", f"{URL}_nicegui_ws/"),
        probes=[Probe("kube-probe/1.34", 200, page=False)], steps=[Step("first poll", (0.005, 0.006))],
        upload=Upload(300_000, 405), whole_uploads=False, stream=Stream(200, (0.01, 0.3, 0.6), ended=True),
    )  # fmt: skip
    for name, value in changes.items():
        assert hasattr(seen, name), name
        setattr(seen, name, value)
    return seen


def ids(seen: Seen) -> set[str]:
    return {finding.id for finding in judge(seen)}


def https(**changes: object) -> Seen:
    landing = replace(LANDING, url="https://app.test/", **changes)  # type: ignore[arg-type]
    return sticky(url="https://app.test/", landing=landing)


PLAIN_STREAM = (0.01, 0.02)

MADE_BY: dict[str, Seen] = {
    "socket-elsewhere": sticky(attempts=[*wave(1, "first", "aaaarrrr"), *wave(2, "reload", "----aarr")]),
    "reload-loop": sticky(attempts=[*wave(1, "first", "aaaarrrr"), *wave(2, "reload", "----aarr")]),
    "reconnect-lost": sticky(
        attempts=[*wave(1, "first", "aaaaaaaa"), *wave(2, "cut", "aaaarrrr"), *wave(3, "cut", "aarr----")]
    ),
    "poll-split": sticky(
        attempts=[*wave(1, "first", "aaaaaaaa"), *wave(2, "cut", "ssssaaaa", "polling", status=400),
                  *wave(3, "confirm", "ssaaaaaa", "polling", status=400)]
    ),
    "rare-refusal": sticky(attempts=[*wave(1, "first", "aaaaaaaa"), *wave(2, "cut", "aaaarrrr")]),
    "few-visitors": sticky(attempts=wave(1, "first", "aa")),
    "no-upgrade": sticky(
        attempts=[*wave(1, "first", "nnnnnnnn", status=400), *wave(2, "first", "aaaaaaaa", "polling")]
    ),
    "socket-silent": sticky(attempts=wave(1, "first", "mmmmmmmm"), echoes=[]),
    "socket-buffered": sticky(echoes=[Echo(0, None, 8192)]),
    "socket-broken": sticky(attempts=wave(1, "first", "aaaaaabb", status=0)),
    "socket-ended": sticky(ended=[Ended(0, 4.2, 0.2)]),
    "idle-cut": sticky(silences=[Silence(5.0, cut=True), Silence(5.1, cut=True)]),
    "idle-cut-long": sticky(silences=[Silence(60.0, cut=True), Silence(60.3, cut=True)]),
    "idle-unmeasured": sticky(silences=[], idle_problem="a poll and the WebSocket after it did not meet"),
    "age-cut": sticky(ended=[Ended(0, 6.0, 1.9), Ended(0, 6.1, 2.0)]),
    "assets-split": sticky(files=[File("/_nicegui/3/components/a.js", (404, 200), own=True, immutable=False)]),
    "assets-missing": sticky(files=[File("/_nicegui/3/components/a.js", (404,) * 7, own=True, immutable=False)]),
    "app-files-missing": sticky(files=[File("/logo.png", (404,) * 7, own=False, immutable=False)]),
    "assets-immutable": sticky(files=[File("/_nicegui/3/components/a.js", (404, 200), own=True, immutable=True)]),
    "prefix-lost": sticky(prefix=Prefix("", "/tools/app", "404")),
    "redirect-prefix": sticky(redirect=Redirect(f"{URL}tools/_nicegui_ws", f"{URL}_nicegui_ws/")),
    "redirect-scheme": sticky(redirect=Redirect("https://app.test/_nicegui_ws", "http://app.test/_nicegui_ws/")),
    "redirect-host": sticky(redirect=Redirect(f"{URL}_nicegui_ws", "http://10.0.0.3:8080/_nicegui_ws/")),
    "scheme-lost": sticky(hops=[Hop(307, "https://app.test/a", "http://app.test/a/")]),
    "plain-links": https(plain_links=("http://app.test/logo.png",)),
    "upload-limit": sticky(upload=Upload(10 << 20, 413, 1 << 20, 2 << 20)),
    "upload-broken": sticky(upload=Upload(10 << 20, 0, problem="the connection was closed instead of an answer")),
    "request-buffered": sticky(whole_uploads=True),
    "response-buffered": sticky(stream=Stream(200, (2.1, 2.1), ended=True)),
    "stream-unclear": sticky(stream=Stream(200, PLAIN_STREAM, ended=True)),
    "cookie-insecure": https(),
    "cookie-samesite": sticky(cookies=[Cookie("SRV", False, "None", 2)]),
    "cookie-dropped": sticky(cookies=[Cookie("SRV", True, "Lax", 2)]),
    "probe-page": sticky(probes=[Probe("kube-probe/1.34", 200, page=True)]),
    "page-errors": sticky(loads=[*(Load(n, 200) for n in range(6)), Load(6, 502), Load(7, 0, "no answer in time")]),
    "unreachable": Seen(URL, 8, problem="no answer in time"),
    "login": Seen(URL, 8, landing=replace(LANDING, version="", login="answered 401 (Basic)")),
    "login-checked": sticky(landing=replace(LANDING, login_page=True)),
    "not-nicegui": Seen(URL, 8, landing=replace(LANDING, version="")),
    "one-address": sticky(cookies=[]),
    "several-replicas": sticky(),
}  # fmt: skip
"""For each finding, the least that makes it."""

NOT_MADE_BY: list[tuple[str, Seen]] = [
    # All sockets of one moment: a replica that ended.
    ("reconnect-lost", MADE_BY["rare-refusal"]),
    ("socket-elsewhere", sticky(attempts=wave(1, "first", "aaaarrrr"))),
    # Pages that were away for longer than NiceGUI keeps them.
    (
        "reconnect-lost",
        sticky(attempts=[*wave(1, "first", "aaaaaaaa"), *wave(2, "cut", "rrrr----", away_s=3.2),
                         *wave(3, "cut", "rrrr----", away_s=3.2)]),
    ),
    # A single mishap in many.
    ("socket-broken", sticky(attempts=wave(1, "first", "aaaaaaab", status=0))),
    ("page-errors", sticky(loads=[*(Load(n, 200) for n in range(7)), Load(7, 502)])),
    # A gateway's error is no missing Upgrade.
    ("no-upgrade", sticky(attempts=wave(1, "first", "aaaaaann", status=502))),
    # A mute socket whose bytes were held is told by the cause.
    ("socket-silent", sticky(attempts=wave(1, "first", "mmmmmmmm"), echoes=[Echo(0, None, 8192)])),
    # Slow, but not slower than requests.
    (
        "socket-buffered",
        sticky(echoes=[Echo(n, 0.6) for n in range(8)], steps=[Step("first poll", (0.5, 0.6))]),
    ),
    # Two that ended at different times, or one alone, are no time-out.
    ("idle-cut", sticky(silences=[Silence(3.0, cut=True), Silence(8.0, cut=True)])),
    ("idle-cut", sticky(silences=[Silence(5.0, cut=True), Silence(10.0, cut=False)])),
    # Sockets in use that a short silence cut as well have no age of their own.
    (
        "age-cut",
        sticky(ended=[Ended(0, 3.0, 3.0)] * 2, silences=[Silence(3.0, cut=True)] * 2),
    ),
    (
        "idle-cut",
        sticky(ended=[Ended(0, 6.0, 2.0)] * 2, silences=[Silence(6.0, cut=True)] * 2),
    ),
    ("assets-missing", MADE_BY["assets-split"]),
    ("assets-missing", MADE_BY["app-files-missing"]),
    ("prefix-lost", sticky(prefix=Prefix("", None, "404"))),
    ("redirect-scheme", sticky(redirect=Redirect(f"{URL}_nicegui_ws", None))),
    ("redirect-host", MADE_BY["redirect-scheme"]),
    ("upload-limit", sticky(upload=Upload(10 << 20, 405))),
    ("upload-broken", sticky(upload=Upload(10 << 20, 405))),
    ("response-buffered", sticky(stream=Stream(200, (2.1, 2.4, 2.7), ended=True))),
    ("response-buffered", sticky(stream=Stream(404, (2.1,), ended=True))),
    ("cookie-dropped", sticky(url="http://localhost:8080/", landing=replace(LANDING, url="http://localhost:8080/"),
                              cookies=[Cookie("SRV", True, "Lax", 2)])),
    ("cookie-samesite", sticky(cookies=[Cookie("SRV", True, "None", 2)])),
    ("few-visitors", MADE_BY["socket-elsewhere"]),
    ("several-replicas", sticky(cookies=[Cookie("session", False, "Lax", 8)])),
    ("not-nicegui", MADE_BY["login"]),
    ("unreachable", sticky()),
]  # fmt: skip


def test_every_finding_has_an_example() -> None:
    assert set(MADE_BY) == set(KINDS)


@pytest.mark.parametrize("id", MADE_BY)
def test_a_finding_is_made_by_what_it_is_about(id: str) -> None:
    found = [finding for finding in judge(MADE_BY[id]) if finding.id == id]
    assert len(found) == 1
    assert found[0].evidence
    assert all(found[0].evidence)
    assert found[0].anchor == f"{DOCUMENT}#{id}"


@pytest.mark.parametrize(("id", "seen"), NOT_MADE_BY, ids=[f"{n}-{id}" for n, (id, _) in enumerate(NOT_MADE_BY)])
def test_a_finding_is_not_made_by_what_is_near_to_it(id: str, seen: Seen) -> None:
    assert id not in ids(seen)


def test_a_page_of_errors_that_nicegui_built_is_no_page_that_was_checked() -> None:
    """NiceGUI answers an unknown path with a page of its own, of which nothing else was opened."""
    seen = Seen(URL, 8, landing=replace(LANDING, status=404))
    assert ids(seen) == {"unreachable"}
    assert judge(seen)[0].evidence == (f"{URL} answered 404, with NiceGUI's own page for errors",)
    assert headline(seen, judge(seen)) == "could not tell: the page could not be loaded"


def test_where_all_is_well_only_that_is_said() -> None:
    assert ids(sticky()) == {"several-replicas"}
    assert verdict(judge(sticky())) is Verdict.STICKY
    assert headline(sticky(), judge(sticky())) == "sticky: every page kept its process"


@pytest.mark.parametrize(
    ("id", "expected"),
    [("socket-elsewhere", Verdict.FAULTY), ("idle-cut", Verdict.FAULTY), ("rare-refusal", Verdict.UNKNOWN),
     ("login", Verdict.UNKNOWN), ("unreachable", Verdict.UNKNOWN), ("cookie-dropped", Verdict.STICKY),
     ("probe-page", Verdict.STICKY)],
)  # fmt: skip
def test_the_verdict_is_the_gravest(id: str, expected: Verdict) -> None:
    assert verdict(judge(MADE_BY[id])) is expected


def test_faults_come_first_and_the_headline_names_the_affinity() -> None:
    seen = MADE_BY["socket-elsewhere"]
    seen = replace(seen, probes=[Probe("kube-probe/1.34", 200, page=True)], whole_uploads=True, upload=Upload(9, 413))
    weights = [finding.weight for finding in judge(seen)]
    assert weights == sorted(weights, key=list(Weight).index)
    assert headline(seen, judge(seen)).startswith("NOT sticky: a page's socket reached another process")


def test_a_fix_is_told_for_the_server_that_has_said_its_name() -> None:
    def fix_of(seen: Seen, id: str) -> str:
        return next(finding.fix for finding in judge(seen) if finding.id == id)

    seen = MADE_BY["idle-cut"]
    assert "proxy_read_timeout" in fix_of(seen, "idle-cut")
    unknown = replace(seen, landing=replace(LANDING, server="Apache"))
    assert fix_of(unknown, "idle-cut") == KINDS["idle-cut"].fix


def test_special_fixes_belong_to_findings() -> None:
    assert {id for id, _ in SPECIAL_FIXES} <= set(KINDS)


def sections(text: str) -> Iterable[str]:
    """Give the ids of a document's sections, as their anchors are."""
    return (line.removeprefix("### ").strip("`") for line in text.splitlines() if line.startswith("### "))


def test_the_document_explains_every_finding_and_no_other() -> None:
    assert list(sections((ROOT / DOCUMENT).read_text("utf-8"))) == list(KINDS)


def test_the_document_says_each_weight_as_it_is() -> None:
    text = (ROOT / DOCUMENT).read_text("utf-8")
    for id, kind in KINDS.items():
        body = text.partition(f"### {id}\n")[2].partition("\n###")[0]
        assert body.lstrip().startswith(f"*{kind.weight.value.capitalize()}.*"), id
