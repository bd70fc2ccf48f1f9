"""Who may order something by the admin port: tools and its own page, and no other page that a browser has open."""

import pytest

from stickyproxy.admin.access import refusal

CHROME = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"}


def own(host: str, **more: str) -> dict[str, str]:
    return CHROME | {"Host": host, "Origin": f"http://{host}"} | more


@pytest.mark.parametrize("agent", ["kube-lifecycle-handler/1.34", "curl/8.5", ""])
def test_tools_and_hooks_may(agent: str) -> None:
    headers = {"Host": "10.0.0.1:9090", "User-Agent": agent}
    assert refusal(headers, hook=True) == ""
    assert refusal(headers, hook=False) == ""


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:9090", "localhost:9090", "[::1]:9090", "10.1.2.3", "stickyproxy-replicas:9090",
        "stickyproxy.shop.svc:9090", "proxy.svc.cluster.local:9090", "my-app-proxy.internal:9090", "LOCALHOST:9090",
    ],
)  # fmt: skip
def test_the_dashboard_may_by_every_name_that_nobody_outside_can_lead_here(host: str) -> None:
    assert refusal(own(host), hook=False) == ""
    assert refusal(own(host, **{"Sec-Fetch-Site": "same-origin"}), hook=False) == ""


@pytest.mark.parametrize("host", ["evil.example:9090", "127.0.0.1.evil.example", "127.0.0.1.nip.io", "xsvc.com", ""])
def test_a_name_that_anybody_can_lead_here_may_not(host: str) -> None:
    assert "anybody could lead here" in refusal(own(host), hook=False)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
def test_another_page_may_not(site: str) -> None:
    assert site in refusal(own("localhost:9090", **{"Sec-Fetch-Site": site}), hook=False)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:8080", "http://localhost:9090.evil"]
)
def test_another_origin_may_not(origin: str) -> None:
    assert "origin" in refusal(own("localhost:9090", Origin=origin), hook=False)


def test_a_browser_that_says_no_origin_may_not() -> None:
    assert "origin" in refusal(CHROME | {"Host": "localhost:9090"}, hook=False)


@pytest.mark.parametrize("headers", [CHROME, {"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://10.0.0.1:9090"}])
def test_no_browser_may_use_a_hook(headers: dict[str, str]) -> None:
    assert "found a browser" in refusal({"Host": "10.0.0.1:9090"} | headers, hook=True)
