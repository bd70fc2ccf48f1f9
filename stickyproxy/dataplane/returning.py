"""An exchange that is a browser's way back to its parked page: it is greeted here, and then joined to what was kept."""

from functools import partial
from typing import TYPE_CHECKING

from stickyproxy.core import faults
from stickyproxy.core.backends import Pick
from stickyproxy.core.parking import DIALOGUE_S, Step
from stickyproxy.dataplane.sending import Sending
from stickyproxy.dataplane.steering import Steering
from stickyproxy.dataplane.takeover import Takeover

if TYPE_CHECKING:
    from stickyproxy.dataplane.parking import Parking


class Returning(Sending):
    """What an exchange does where a parked page's browser is back."""

    __slots__ = ()

    def _cookie_line(self, pick: Pick) -> bytes:
        """Build the line that binds a browser to a backend."""
        raise NotImplementedError

    def _returns(self, parking: "Parking", steering: Steering) -> bool:
        """Say whether this is a browser that comes back to its parked page, and begin to greet it."""
        if steering.parkable() is None:
            if steering.polls and parking.asks_for_socket(steering.page, self.head.target):
                self._fail(faults.COME_BY_SOCKET)
                return True
            return False
        takeover = Takeover.of(parking, steering.page, self.head, self.proxy.random)
        pick = self._choose() if takeover is not None else None
        if takeover is None or pick is None or pick.backend.identity != takeover.tunnel.identity:
            return False
        self.pick = pick
        self.began = self.proxy.time()
        self._resume(takeover, pick)
        return True

    def _resume(self, takeover: Takeover, pick: Pick) -> None:
        """Greet the browser."""
        self.takeover = takeover
        self.request_done = False  # so that what comes is given to `send_body`
        self.downstream.deadline = self.began + DIALOGUE_S
        self.downstream.send(takeover.greeting(self._cookie_line(pick) if pick.to_hand_out else b""))
        self.proxy.counters.count_request(101, pick)
        self.proxy.loop.call_soon(self._take_held)

    def _take_held(self) -> None:
        """Take what came behind the head of the request."""
        if self.downstream.exchange is self and (held := self.downstream.take_held()):
            self.send_body(held)

    def _go_on_returning(self, takeover: Takeover, data: bytes) -> None:
        """Take bytes of a browser that comes back, until its page is its own again."""
        downstream = self.downstream
        step, answer = takeover.feed(data)
        if answer:
            downstream.send(answer)
        if step is Step.RETURNED and (reopening := takeover.tunnel.reopening) is not None and reopening.running:
            if takeover not in reopening.waiting:
                reopening.waiting[takeover] = partial(self._go_on_waiting, takeover)
            downstream.account()
        elif step is Step.RETURNED and takeover.tunnel.can_park:
            self.takeover = None
            downstream.deadline = 0.0
            downstream.return_to(takeover.tunnel, takeover.waiting, takeover.rest)
        elif step is not Step.OPEN:  # it is a stranger, or the backend has gone meanwhile
            downstream.break_off(reset=False)
        elif takeover.waiting_bytes:
            downstream.account()

    def _go_on_waiting(self, takeover: Takeover) -> None:
        """Go on with a browser that was back before its backend's new socket was there."""
        if self.takeover is takeover and self.downstream.exchange is self:
            self._go_on_returning(takeover, b"")
