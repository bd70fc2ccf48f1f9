from http.cookies import SimpleCookie
from typing import Any

import pytest

from stickyproxy.core.cookies import CookieSettings, CookieWriter, split_cookie


@pytest.mark.parametrize(
    ("settings", "https", "line"),
    [
        ({}, False, b"stickyproxy=T; Path=/; HttpOnly; SameSite=Lax"),
        ({}, True, b"stickyproxy=T; Path=/; HttpOnly; SameSite=Lax; Secure"),
        ({"secure": "always"}, False, b"stickyproxy=T; Path=/; HttpOnly; SameSite=Lax; Secure"),
        ({"secure": "never"}, True, b"stickyproxy=T; Path=/; HttpOnly; SameSite=Lax"),
        ({"name": "pin", "path": "/app"}, False, b"pin=T; Path=/app; HttpOnly; SameSite=Lax"),
        ({"samesite": "Strict"}, False, b"stickyproxy=T; Path=/; HttpOnly; SameSite=Strict"),
        (
            {"samesite": "None", "partitioned": True},
            True,
            b"stickyproxy=T; Path=/; HttpOnly; SameSite=None; Partitioned; Secure",
        ),
        (
            {"domain": "app.example", "max_age_s": 60},
            False,
            b"stickyproxy=T; Path=/; HttpOnly; SameSite=Lax; Domain=app.example; Max-Age=60",
        ),
    ],
)
def test_the_cookie_has_the_attributes_that_were_set(settings: dict[str, Any], https: bool, line: bytes) -> None:
    written = CookieWriter(CookieSettings(**settings)).line(b"T", https=https)
    assert written == b"\r\nSet-Cookie: " + line


def test_a_browser_reads_the_cookie_as_it_was_meant() -> None:
    written = CookieWriter(CookieSettings(domain="app.example", max_age_s=60)).line(b"a-_Z09", https=True)
    (morsel,) = SimpleCookie(written.partition(b": ")[2].decode()).values()
    assert (morsel.key, morsel.value) == ("stickyproxy", "a-_Z09")
    assert {name: value for name, value in morsel.items() if value} == {
        "path": "/",
        "domain": "app.example",
        "max-age": "60",
        "samesite": "Lax",
        "secure": True,
        "httponly": True,
    }


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"name": ""}, "cookie-name"),
        ({"name": "a b"}, "cookie-name"),
        ({"name": "a=b"}, "cookie-name"),
        ({"name": "a;b"}, "cookie-name"),
        ({"name": "a\r\nX: y"}, "cookie-name"),
        ({"name": "a\n"}, "cookie-name"),
        ({"name": "ä"}, "cookie-name"),
        ({"path": ""}, "cookie-path"),
        ({"path": "app"}, "cookie-path"),
        ({"path": "/a; Domain=evil"}, "cookie-path"),
        ({"path": "/a\r\nX: y"}, "cookie-path"),
        ({"path": "/a\n"}, "cookie-path"),
        ({"path": "/ä"}, "cookie-path"),
        ({"domain": "a;b"}, "cookie-domain"),
        ({"domain": "a b"}, "cookie-domain"),
        ({"domain": "a\n"}, "cookie-domain"),
        ({"samesite": "None", "secure": "never"}, "cookie-samesite"),
        ({"partitioned": True, "secure": "never"}, "cookie-partitioned"),
    ],
)
def test_a_wrong_cookie_setting_is_named(settings: dict[str, Any], option: str) -> None:
    with pytest.raises(ValueError, match=f"^{option}: "):
        CookieSettings(**settings)


@pytest.mark.parametrize(
    ("value", "left", "taken"),
    [
        (b"", b"", []),
        (b"a=1", b"a=1", []),
        (b"pin=T", b"", [b"T"]),
        (b" pin=T ", b"", [b"T"]),
        (b"pin=T; a=1", b"a=1", [b"T"]),
        (b"a=1;pin=T;b=2", b"a=1; b=2", [b"T"]),
        (b"a=1; pin=T;", b"a=1", [b"T"]),
        (b"pin=T; pin=U", b"", [b"T", b"U"]),
        (b'pin="T"', b"", [b"T"]),
        (b"pin =T", b"", [b"T"]),
        (b"pin=a=b==", b"", [b"a=b=="]),
        (b"pin=", b"", [b""]),
        (b"pin", b"", [b""]),
        (b"PIN=T; pins=1; xpin=2; a=pin=3", b"PIN=T; pins=1; xpin=2; a=pin=3", []),
        (b"a; =b; ;; c=", b"a; =b; c=", []),
        (b"a=\xff; pin=\xfe", b"a=\xff", [b"\xfe"]),
    ],
)
def test_the_cookies_of_one_name_are_taken_out(value: bytes, left: bytes, taken: list[bytes]) -> None:
    assert split_cookie(value, b"pin") == (left, taken)
