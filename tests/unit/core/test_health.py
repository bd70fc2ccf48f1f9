import pytest

from stickyproxy.core.backends import Backend, Phase, Secrets, Snapshot
from stickyproxy.core.health import readiness
from stickyproxy.core.values import Address


def snapshot(*phases: Phase) -> Snapshot:
    backends = [Backend(f"uid-{n}", Address(f"10.0.0.{n}", 80), phase) for n, phase in enumerate(phases)]
    return Snapshot(backends, Secrets())


@pytest.mark.parametrize(
    ("phases", "synced", "draining", "needs_backend", "ready", "text"),
    [
        ([Phase.READY], True, False, False, True, "ready: 1 of 1 backends usable"),
        ([Phase.READY], True, False, True, True, "ready: 1 of 1 backends usable"),
        ([Phase.DRAINING, Phase.PAUSED], True, False, True, True, "ready: 1 of 2 backends usable"),
        # An outage of the app must not take away the proxy that explains it.
        ([], True, False, False, True, "ready: 0 of 0 backends usable"),
        ([Phase.PAUSED], True, False, False, True, "ready: 0 of 1 backends usable"),
        ([], True, False, True, False, "not ready: 0 of 0 backends usable"),
        ([Phase.PAUSED], True, False, True, False, "not ready: 0 of 1 backends usable"),
        ([], False, False, False, False, "not ready: no backend list yet, waiting for discovery"),
        ([Phase.READY], True, True, False, False, "not ready: draining, 1 of 1 backends usable"),
        ([], False, True, True, False, "not ready: draining, 0 of 0 backends usable"),
    ],
)
def test_the_proxy_is_ready_when_it_knows_its_backends_and_does_not_drain(
    phases: list[Phase], synced: bool, draining: bool, needs_backend: bool, ready: bool, text: str
) -> None:
    told = readiness(snapshot(*phases), synced=synced, draining=draining, needs_backend=needs_backend)
    assert told == (ready, text)


def test_what_is_missing_makes_unready_and_is_said() -> None:
    def told(missing: str, *, draining: bool = False, synced: bool = True) -> tuple[bool, str]:
        known = snapshot(Phase.READY)
        return readiness(known, synced=synced, draining=draining, needs_backend=False, missing=missing)

    assert told("") == (True, "ready: 1 of 1 backends usable")
    assert told("the app sleeps") == (False, "not ready: the app sleeps")
    assert told("the app sleeps", synced=False) == (False, "not ready: the app sleeps")
    assert told("the app sleeps", draining=True) == (False, "not ready: draining, 1 of 1 backends usable")


def test_the_text_names_no_address_and_is_one_line() -> None:
    for synced in (False, True):
        for draining in (False, True):
            text = readiness(snapshot(Phase.READY), synced=synced, draining=draining, needs_backend=True).text
            assert "10.0.0" not in text
            assert "uid" not in text
            assert "\n" not in text
