"""A browser stays with its backend for as long as that lives, and is told at once when it must move."""

import asyncio

import pytest

from stickyproxy.core.affinity import HashKey, parse_hash_key
from stickyproxy.core.backends import Phase
from stickyproxy.core.cookies import CookieSettings
from stickyproxy.core.settings import AffinitySettings, Settings

from .harness import QUICK, Message, RawBackend, Running, Stage, eventually, named, request, response, turns

NAVIGATE = "Sec-Fetch-Mode: navigate"


def by_affinity(**more: object) -> Settings:
    return Settings(times=QUICK, affinity=AffinitySettings(**more))  # type: ignore[arg-type]


async def trio(stage: Stage, settings: Settings | None = None) -> tuple[Running, list[RawBackend]]:
    backends = [await stage.backend(named(f"b{n}")) for n in range(3)]
    return await stage.proxy(*backends, settings=settings), backends


async def test_a_new_browser_gets_a_cookie_and_stays_where_it_leads(stage: Stage) -> None:
    running, _ = await trio(stage)
    first = await running.ask(request())
    (cookie,) = first.all("set-cookie")
    pin, _, attributes = cookie.partition("; ")
    assert attributes == "Path=/; HttpOnly; SameSite=Lax"
    for _ in range(10):
        later = await running.ask(request("GET / HTTP/1.1", f"Cookie: {pin}"))
        assert later.body == first.body
        assert later.token is None
    assert running.counters == {"new": 1, "kept": 10}


async def test_new_browsers_are_spread(stage: Stage) -> None:
    running, _ = await trio(stage)
    bodies = [(await running.ask(request())).body for _ in range(9)]
    assert {bodies.count(b"b%d" % n) for n in range(3)} == {3}


async def test_an_unknown_token_is_no_pin_and_counts_as_moved(stage: Stage) -> None:
    running, _ = await trio(stage)
    message = await running.ask(request("GET / HTTP/1.1", "Cookie: stickyproxy=AAAAAAAAAAAAAAAA"))
    assert message.token is not None
    assert running.counters == {"new": 0, "kept": 0, "gone": 1}


async def test_a_pin_moves_when_its_backend_leaves_the_list_and_back_it_does_not(stage: Stage) -> None:
    running, backends = await trio(stage)
    old = running.cookie(backends[0])
    running.apply(backends[1].at(), backends[2].at())
    moved = await running.ask(request("GET / HTTP/1.1", old))
    assert moved.body in (b"b1", b"b2")
    running.apply(*(b.at() for b in backends))
    again = await running.ask(request("GET / HTTP/1.1", f"Cookie: stickyproxy={moved.token}"))
    assert (again.body, again.token) == (moved.body, None)


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        (["Cookie: {}"], []),
        (["Cookie: a=1; {}; b=2"], ["a=1; b=2"]),
        (["Cookie: {}; b=2"], ["b=2"]),
        (["Cookie: a=1;{}"], ["a=1"]),
        (["cookie: a=1", "COOKIE: {}", "Cookie: b=2"], ["a=1", "b=2"]),
        (["Cookie: xstickyproxy=1; {}"], ["xstickyproxy=1"]),
        (["Cookie: {}; stickyproxy=bogus"], []),
        (["Cookie: stickyproxy=bogus; {}"], []),
    ],
)
async def test_our_cookie_is_never_forwarded_and_others_always_are(
    stage: Stage, sent: list[str], seen: list[str]
) -> None:
    running, backends = await trio(stage)
    cookie = running.cookie(backends[1]).removeprefix("Cookie: ")
    message = await running.ask(request("GET / HTTP/1.1", *(line.format(cookie) for line in sent)))
    assert (message.body, message.token) == (b"b1", None)
    assert backends[1].requests[0].all("cookie") == seen


@pytest.mark.parametrize(
    "control", ["public, max-age=31536000, immutable", "Public", "max-age=1, s-maxage=60", "max-age=60"]
)
async def test_no_cookie_is_set_where_shared_caches_may_store_it(stage: Stage, control: str) -> None:
    backend = await stage.backend(lambda _: response("200 OK", f"Cache-Control: {control}", body=b"x"))
    running = await stage.proxy(backend)
    assert (await running.ask(request())).token is None


@pytest.mark.parametrize("control", ["private", "no-store", "private, max-age=60", "no-cache"])
async def test_a_cookie_is_set_where_only_the_browser_may_store_it(stage: Stage, control: str) -> None:
    backend = await stage.backend(lambda _: response("200 OK", f"Cache-Control: {control}", body=b"x"))
    running = await stage.proxy(backend)
    assert (await running.ask(request())).token is not None


@pytest.mark.parametrize(
    ("proto", "trusted", "secure"),
    [("https", True, True), ("wss", True, True), ("HTTPS, http", True, True), ("http", True, False),
     ("http, https", True, False), (None, True, False), ("https", False, False)],
)  # fmt: skip
async def test_the_cookie_is_secure_when_a_trusted_proxy_says_that_the_browser_came_by_https(
    stage: Stage, proto: str | None, trusted: bool, secure: bool
) -> None:
    settings = Settings(times=QUICK) if trusted else Settings(times=QUICK, trusted=())
    running, _ = await trio(stage, settings)
    said = [f"X-Forwarded-Proto: {proto}"] if proto else []
    (cookie,) = (await running.ask(request("GET / HTTP/1.1", *said))).all("set-cookie")
    assert cookie.endswith("; Secure") is secure


async def test_the_cookies_attributes_are_as_set(stage: Stage) -> None:
    cookie = CookieSettings("pin", "/app", "app.test", "None", "always", True, 3600)
    running, _ = await trio(stage, by_affinity(cookie=cookie))
    (line,) = (await running.ask(request())).all("set-cookie")
    name, *attributes = line.split("; ")
    assert name.startswith("pin=")
    assert set(attributes) == {
        "Path=/app", "HttpOnly", "SameSite=None", "Domain=app.test", "Max-Age=3600", "Partitioned", "Secure",
    }  # fmt: skip


async def test_a_token_of_an_older_secret_is_kept(stage: Stage) -> None:
    running, backends = await trio(stage, by_affinity(secrets=(b"old secret",)))
    old = running.cookie(backends[2])
    rotated = await stage.proxy(*backends, settings=by_affinity(secrets=(b"new secret", b"old secret")))
    message = await rotated.ask(request("GET / HTTP/1.1", old))
    assert (message.body, message.token) == (b"b2", None)
    stranger = await stage.proxy(*backends, settings=by_affinity(secrets=(b"other secret",)))
    await stranger.ask(request("GET / HTTP/1.1", old))
    assert stranger.counters == {"new": 0, "kept": 0, "gone": 1}


async def test_replicas_of_the_proxy_agree_on_tokens(stage: Stage) -> None:
    running, backends = await trio(stage)
    other = await stage.proxy(*reversed(backends))
    for backend in backends:
        assert running.cookie(backend) == other.cookie(backend)


# --affinity hash


def keyed(kind: str, key: str) -> bytes:
    source, _, name = kind.partition(":")
    return {
        "header": lambda: request("GET / HTTP/1.1", f"{name}: {key}"),
        "cookie": lambda: request("GET / HTTP/1.1", f"Cookie: a=b; {name}={key}"),
        "query": lambda: request(f"GET /x?a=b&{name}={key} HTTP/1.1"),
        "address": lambda: request("GET / HTTP/1.1", f"X-Forwarded-For: {key}"),
    }[source]()


KINDS = ["header:X-User", "cookie:user", "query:user", "address"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_key_leads_to_one_backend_without_any_cookie(stage: Stage, kind: str) -> None:
    running, backends = await trio(stage, by_affinity(hash_key=parse_hash_key(kind)))
    keys = [f"9.9.9.{n}" for n in range(30)]

    async def placed(running: Running) -> dict[str, Message]:
        return {key: await running.ask(keyed(kind, key)) for key in keys}

    first = await placed(running)
    assert {m.body for m in first.values()} == {b"b0", b"b1", b"b2"}
    assert all(m.token is None for m in first.values())
    again = await placed(await stage.proxy(*reversed(backends), settings=by_affinity(hash_key=parse_hash_key(kind))))
    assert {k: m.body for k, m in again.items()} == {k: m.body for k, m in first.items()}
    running.apply(backends[0].at(), backends[1].at())
    fewer = await placed(running)
    for key in keys:
        assert fewer[key].body == first[key].body or first[key].body == b"b2"


async def test_a_key_whose_backend_refuses_goes_to_the_next_and_is_counted(stage: Stage) -> None:
    running, backends = await trio(stage, by_affinity(hash_key=parse_hash_key("header:X-User")))
    home = (await running.ask(keyed("header:X-User", "me"))).body
    await backends[int(home[1:])].stop_listening()
    running.proxy.pools[backends[int(home[1:])].at().identity].close_idle(float("inf"))
    await turns()
    away = [(await running.ask(keyed("header:X-User", "me"))).body for _ in range(3)]
    assert len(set(away)) == 1
    assert away[0] != home
    assert running.proxy.counters.moved["refused"] == 3


async def test_a_request_without_the_key_is_pinned_by_cookie(stage: Stage) -> None:
    running, _ = await trio(stage, by_affinity(hash_key=HashKey(parse_hash_key("header:X-User").source, b"x-user")))
    first = await running.ask(request())
    assert first.token is not None
    again = await running.ask(request("GET / HTTP/1.1", f"Cookie: stickyproxy={first.token}"))
    assert (again.body, again.token) == (first.body, None)


# Phases.


async def test_a_paused_backend_keeps_its_pins_and_gets_no_new_ones(stage: Stage) -> None:
    running, (one, two, three) = await trio(stage)
    running.apply(one.at(Phase.PAUSED), two.at(), three.at())
    kept = await running.ask(request("GET / HTTP/1.1", running.cookie(one), NAVIGATE))
    assert (kept.body, kept.token) == (b"b0", None)
    assert b"b0" not in [(await running.ask(request())).body for _ in range(6)]


async def test_a_request_to_a_paused_backend_that_refuses_is_held_and_served_when_it_comes_back(
    stage: Stage,
) -> None:
    running, (one, two, three) = await trio(stage, by_affinity(hold_s=10))
    await one.stop_listening()
    running.apply(one.at(Phase.PAUSED), two.at(), three.at())
    client = await running.client()
    client.send(request("POST / HTTP/1.1", running.cookie(one), body=b"patience"))
    await eventually(lambda: running.proxy.counters.dials, "it is tried")
    await one.start()
    running.apply(one.at(), two.at(), three.at())
    message = await client.message()
    assert (message.body, message.token) == (b"b0", None)
    assert one.requests[0].body == b"patience"
    assert running.counters == {"new": 0, "kept": 1}


async def test_a_held_request_is_served_without_any_news_from_discovery(stage: Stage) -> None:
    running, (one, two, three) = await trio(stage, by_affinity(hold_s=10))
    await one.stop_listening()
    running.apply(one.at(Phase.PAUSED), two.at(), three.at())
    client = await running.client()
    client.send(request("GET / HTTP/1.1", running.cookie(one)))
    await eventually(lambda: running.proxy.counters.dials, "it is tried")
    await one.start()
    assert (await client.message()).body == b"b0"


async def test_a_held_request_moves_when_the_hold_is_over(stage: Stage) -> None:
    running, (one, two, three) = await trio(stage, by_affinity(hold_s=0.3))
    await one.stop_listening()
    running.apply(one.at(Phase.PAUSED), two.at(), three.at())
    loop = asyncio.get_running_loop()
    before = loop.time()
    message = await running.ask(request("GET / HTTP/1.1", running.cookie(one)))
    assert loop.time() - before >= 0.29
    assert message.body in (b"b1", b"b2")
    assert message.token is not None
    assert running.counters == {"new": 0, "kept": 0, "refused": 1}


async def test_a_held_request_moves_at_once_when_its_backend_leaves_the_list(stage: Stage) -> None:
    running, (one, two, three) = await trio(stage, by_affinity(hold_s=60))
    await one.stop_listening()
    running.apply(one.at(Phase.PAUSED), two.at(), three.at())
    client = await running.client()
    client.send(request("GET / HTTP/1.1", running.cookie(one)))
    await eventually(lambda: running.proxy.counters.dials, "it is tried")
    running.apply(two.at(), three.at())
    message = await client.message()
    assert message.body in (b"b1", b"b2")
    assert message.token is not None


async def test_a_held_request_follows_its_backend_to_another_address(stage: Stage) -> None:
    """A pod keeps its UID when its sandbox, and with it its IP, is made anew: see DESIGN section 4."""
    from dataclasses import replace

    running, (one, two, three) = await trio(stage, by_affinity(hold_s=10))
    pod = replace(one.at(Phase.PAUSED), identity="uid-1")
    running.apply(pod, three.at())
    await one.stop_listening()
    token = running.proxy.snapshot.token_of(pod).decode()
    client = await running.client()
    client.send(request("GET / HTTP/1.1", f"Cookie: stickyproxy={token}"))
    await eventually(lambda: running.proxy.counters.dials, "it is tried")
    running.apply(replace(pod, address=two.address, phase=Phase.READY), three.at())
    message = await client.message()
    assert (message.body, message.token) == (b"b1", None)


async def test_a_draining_backend_keeps_its_pages_and_gives_up_navigations(stage: Stage) -> None:
    running, (one, two, three) = await trio(stage)
    running.apply(one.at(Phase.DRAINING), two.at(), three.at())
    pin = running.cookie(one)
    stays = await running.ask(request("GET /script.js HTTP/1.1", pin, "Sec-Fetch-Mode: no-cors"))
    assert (stays.body, stays.token) == (b"b0", None)
    posts = await running.ask(request("POST / HTTP/1.1", pin, body=b"x"))
    assert posts.body == b"b0"
    moves = await running.ask(request("GET / HTTP/1.1", pin, NAVIGATE))
    assert moves.body in (b"b1", b"b2")
    assert moves.token is not None
    assert running.counters == {"new": 0, "kept": 2, "draining": 1}


async def test_a_navigation_stays_with_a_draining_backend_where_no_other_is_ready(stage: Stage) -> None:
    running, (one, two, _) = await trio(stage)
    running.apply(one.at(Phase.DRAINING), two.at(Phase.PAUSED))
    message = await running.ask(request("GET / HTTP/1.1", running.cookie(one), NAVIGATE))
    assert (message.body, message.token) == (b"b0", None)


async def test_a_new_browser_gets_a_draining_backend_rather_than_a_503(stage: Stage) -> None:
    running, (one, two, _) = await trio(stage)
    running.apply(one.at(Phase.DRAINING), two.at(Phase.PAUSED))
    assert (await running.ask(request())).body == b"b0"


async def test_a_draining_backend_that_refuses_loses_its_pins(stage: Stage) -> None:
    running, (one, two, _) = await trio(stage)
    await one.stop_listening()
    running.apply(one.at(Phase.DRAINING), two.at())
    message = await running.ask(request("GET /a.js HTTP/1.1", running.cookie(one)))
    assert message.body == b"b1"
    assert message.token is not None
