"""How a data plane comes to its end, in stages.

Laws: every transition stands in `TABLE`, and what it does not name changes nothing, so that every order may come twice;
no stage leads back.
"""

from collections.abc import Mapping
from enum import Enum


class Stage(Enum):
    """What a data plane still does."""

    SERVING = "serving"  # all
    LEAVING = "leaving"  # all, but unready: load balancers learn of it
    DRAINING = "draining"  # what is open, and nothing new
    CLOSED = "closed"  # nothing


class Event(Enum):
    """What it is told."""

    LEAVE = "told to leave"
    DRAIN = "told to drain, or the delay is over"
    CLOSE = "told to end at once, nothing is open, or the time is over"


class Effect(Enum):
    """What a transition asks of the caller."""

    ANNOUNCE = "be unready, watch tunnels"
    REFUSE = "be unready, accept no more, close tunnels one by one"
    DROP = "drop all that is left"


TABLE: Mapping[tuple[Stage, Event], tuple[Stage, Effect]] = {
    (Stage.SERVING, Event.LEAVE): (Stage.LEAVING, Effect.ANNOUNCE),
    (Stage.SERVING, Event.DRAIN): (Stage.DRAINING, Effect.REFUSE),
    (Stage.SERVING, Event.CLOSE): (Stage.CLOSED, Effect.DROP),
    (Stage.LEAVING, Event.DRAIN): (Stage.DRAINING, Effect.REFUSE),
    (Stage.LEAVING, Event.CLOSE): (Stage.CLOSED, Effect.DROP),
    (Stage.DRAINING, Event.CLOSE): (Stage.CLOSED, Effect.DROP),
}
