import pytest

from stickyproxy.core.probes import PROBERS
from stickyproxy.core.request import RequestReader

READER = RequestReader("stickyproxy", PROBERS)

BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"


def is_probe(agent: str) -> bool:
    raw = f"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: {agent}\r\n\r\n".encode()
    return READER.parse_head(raw).fields.probe


@pytest.mark.parametrize(
    "agent",
    [
        "kube-probe/1.30",
        "GoogleHC/1.0",
        "ELB-HealthChecker/2.0",
        "Amazon-Route53-Health-Check-Service (ref 1234; report http://amzn.to/1vsZADi)",
        "Edge Health Probe",
        "Load Balancer Agent",
        "Azure Traffic Manager Endpoint Monitor",
        "Envoy/HC",
        "Consul Health Check",
        "Blackbox Exporter/0.25.0",
    ],
)
def test_the_probers_of_clusters_and_clouds_are_known(agent: str) -> None:
    assert is_probe(agent)


@pytest.mark.parametrize("agent", [BROWSER, "curl/8.5.0", "Envoy/1.30", "GoogleOther", "python-requests/2", ""])
def test_nobody_else_is_taken_for_a_probe(agent: str) -> None:
    assert not is_probe(agent)
