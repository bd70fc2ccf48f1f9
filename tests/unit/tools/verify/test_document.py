from urllib.parse import parse_qs, urlsplit

import pytest

from stickyproxy.core.nicegui import PATIENCE, added
from stickyproxy.tools.verify.document import (
    asks_password,
    find_files,
    find_plain_links,
    parse_nicegui,
    sign_of_login,
)

ID = "11111111-2222-4333-8444-555555555555"

PAGE = """<head><link href="/p/favicon.ico" rel="shortcut icon" />
<style>@import url("/p/_nicegui/3.18.0/static/fonts.css") layer(base);</style>
<script type="importmap">{"imports": {"vue": "/p/_nicegui/3.18.0/static/vue.js", "folder/": "/p/folder/"}}</script>
<link rel="modulepreload" href="/p/_nicegui/3.18.0/components/abc/table.js" /></head>
<script defer src="/p/_nicegui/3.18.0/static/nicegui.js"></script>
<script type="module">
      const app = createApp(parseElements(String.raw`{"0": {"text": "query: {'client_id': 'decoy'}"}}`), {
        version: "3.18.0",
        prefix: "/p",
        query: {'tenant': "it's {x}", QUERY'client_id': 'ID', 'next_message_id': 3, 'implicit_handshake': True},
        extraHeaders: {'x-own': 'a'},
        transports: ['websocket', 'polling'],
      });
      import { default as table } from "/p/_nicegui/3.18.0/components/abc/table.js";
</script>""".replace("ID", ID)

PLAIN = PAGE.replace("QUERY", "")


def test_a_page_is_read_as_its_script_would() -> None:
    page = parse_nicegui(PLAIN)
    assert page is not None
    assert (page.version, page.prefix, page.transports) == ("3.18.0", "/p", ("websocket", "polling"))
    assert page.extra_headers == {"x-own": "a"}
    assert page.asks_implicitly
    assert page.next_message_id == 3
    target = urlsplit(page.socket_target("websocket"))
    assert target.path == "/_nicegui_ws/socket.io/"
    query = {key: values[0] for key, values in parse_qs(target.query).items()}
    assert query == {
        "tenant": "it's {x}", "client_id": ID, "next_message_id": "3", "implicit_handshake": "true", "EIO": "4",
        "transport": "websocket", "document_id": page.document_id, "tab_id": page.tab_id,
    }  # fmt: skip
    assert parse_qs(urlsplit(page.socket_target("polling", "abc")).query)["sid"] == ["abc"]


def test_the_proxys_own_token_is_read_as_the_value_that_it_is() -> None:
    page = parse_nicegui(PAGE.replace("QUERY", added(b"tok-en_1").decode()))
    assert page is not None
    assert page.query["_stickyproxy"] == "tok-en_1"
    assert page.query["client_id"] == ID


def test_what_a_proxy_adds_to_park_pages_is_no_part_of_the_query() -> None:
    page = parse_nicegui(PAGE.replace("QUERY", (PATIENCE + added(b"tok")).decode()))
    plain = parse_nicegui(PLAIN)
    assert page is not None
    assert plain is not None
    assert page.query == plain.query | {"_stickyproxy": "tok"}


@pytest.mark.parametrize(
    "text",
    ["", "<html>", PLAIN.replace("'client_id': ", "'other': "), PLAIN.replace("True}", "true}"),
     PLAIN.replace("{'tenant'", "{" + "(" * 500 + "'tenant'"), PLAIN.replace('prefix: "/p",', "")],
)  # fmt: skip
def test_what_is_no_page_of_niceguis_is_none(text: str) -> None:
    assert parse_nicegui(text) is None


def test_files_are_found_once_each_wherever_they_are_named() -> None:
    assert find_files(PLAIN) == [
        "/p/favicon.ico",
        "/p/_nicegui/3.18.0/components/abc/table.js",
        "/p/_nicegui/3.18.0/static/nicegui.js",
        "/p/_nicegui/3.18.0/static/fonts.css",
        "/p/_nicegui/3.18.0/static/vue.js",
    ]
    assert find_files('<link rel="canonical" href="/page"><link href="/feed" rel="alternate">') == []
    assert find_files('<link href="data:image/png;base64,AA"><script type="importmap">{]</script>') == []


def test_plain_links_of_the_own_host_are_found() -> None:
    text = '<a href="http://app.test:80/a"><img src="http://other.test/b"><img src="https://app.test/c">'
    assert find_plain_links(text, "app.test") == ["http://app.test:80/a"]


@pytest.mark.parametrize(
    ("changes", "sign"),
    [
        ({}, ""),
        ({"status": 401, "challenge": 'Basic realm="x"'}, "answered 401 (Basic)"),
        ({"status": 403}, "answered 403"),
        ({"other_host": "sso.test"}, "redirected to sso.test"),
        ({"path": "/oauth2/start"}, "redirected to /oauth2/start"),
        ({"text": "<form><input name=p type='password'>"}, "the page asks for a password"),
        ({"path": "/author/x"}, ""),
        ({"other_host": "www.app.test", "nicegui": True}, ""),
    ],
)
def test_a_login_shows_by_signs(changes: dict[str, object], sign: str) -> None:
    usual = {"status": 200, "path": "/", "other_host": "", "challenge": "", "text": "", "nicegui": False}
    assert sign_of_login(**(usual | changes)) == sign  # type: ignore[arg-type]


def test_a_login_page_of_niceguis_own_is_known() -> None:
    assert asks_password("", "/login")
    assert asks_password("{&quot;props&quot;:{&quot;type&quot;:&quot;password&quot;}}", "/")
    assert not asks_password("<p>password</p>", "/")
