"""What is decided where the proxy stands in the app's own pod: which backend that is, and whether its app is alive.

Laws: our pod's backend keeps its identity, so that a token means the same in every sidecar, and changes its address
only; a doubt about the app counts for it, since a restart costs everybody's pages.
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from stickyproxy.core.backends import USE, Backend
from stickyproxy.core.values import Address

QUEUED_S = 5.0
"""Seconds after which a request without a first byte counts as queueing behind the one that is stuck: in an app whose
event loop turns, hardly any request that came behind a slow one waits so long."""


def localise(backends: Iterable[Backend], local: Address, here: Container[str]) -> tuple[list[Backend], Backend | None]:
    """Give the backends with our pod's one at `local`, and that one as it was listed; None where it is not listed.

    here: the hosts of backends that are this machine's. Of several backends on it the port decides; where no port
    fits, the host does, if it stands for one address only. Others that are listed at the very same address are left
    out: they are pods that had our address before us.
    """
    backends = list(backends)
    ours = [b for b in backends if b.address.host in here]
    fitting = [b for b in ours if b.address.port == local.port]
    if not fitting and len({b.address for b in ours}) == 1:
        fitting = ours
    own = min(fitting, key=lambda b: (b.address != local, USE.index(b.phase), b.identity), default=None)
    if own is None:
        return backends, None
    others = [b for b in backends if b.address != own.address]
    return [replace(own, address=local), *others], own


def suspect(waits: Sequence[float], stuck_after_s: float) -> bool:
    """Say whether so long waits (seconds without a first byte) would be those of an app that is stuck.

    One request has waited for `stuck_after_s`, and another at least for QUEUED_S.
    """
    longest, *others = sorted(waits, reverse=True) or [0.0]
    return longest >= stuck_after_s and any(wait >= min(QUEUED_S, stuck_after_s) for wait in others)


class AppSigns(NamedTuple):
    """What a data plane sees of the app; the fields are as in `judge_app`."""

    listens: bool | None
    waits: tuple[float, ...]
    silent_s: float


class AppLife(NamedTuple):
    """Whether the app's container should live on; `text` is one line for a person."""

    alive: bool
    text: str


def judge_app(
    local: Address, listens: bool | None, waits: Sequence[float], silent_s: float, stuck_after_s: float
) -> AppLife:
    """Decide whether the app at `local` is alive.

    listens: None where nobody can tell. waits: seconds that its requests have been without a first byte. silent_s:
    seconds since anything came from it on any connection, infinite where nothing has: while it says something, slow
    requests are only slow.
    """
    if listens is False:
        return AppLife(False, f"not alive: the app does not listen on {local}")
    if suspect(waits, stuck_after_s) and silent_s >= stuck_after_s:
        return AppLife(
            False,
            f"not alive: the app on {local} has left a request without a first byte for {max(waits):.0f} s, "
            f"{len(waits) - 1} more wait, and nothing else has come from it for {stuck_after_s:g} s "
            "(--app-stuck-after)",
        )
    doubt = "" if listens else f"cannot tell whether it listens on {local}, "
    return AppLife(
        True, f"alive: {doubt}{len(waits)} requests wait for a first byte, the longest {max(waits, default=0):.0f} s"
    )


def judge_signs(local: Address, signs: Sequence[AppSigns], stuck_after_s: float) -> AppLife:
    """Decide by what several data planes see, which share an app: what it says to one of them counts for all."""
    listens = next((s.listens for s in signs), None)
    waits = [wait for s in signs for wait in s.waits]
    return judge_app(local, listens, waits, min((s.silent_s for s in signs), default=0.0), stuck_after_s)
