"""What reading gives, from a cluster or from files: objects, and what could not be looked at.

Law: a right that is missing is said and costs only the rules that need it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from stickyproxy.tools.doctor.objects import Obj
from stickyproxy.tools.doctor.resources import Need
from stickyproxy.tools.doctor.scene import Scene
from stickyproxy.tools.doctor.vendors import BY_KIND, INGRESS_VENDORS


class ReadError(Exception):
    """Nothing can be told; the text is one line that says what was expected and found."""


@dataclass(frozen=True, slots=True)
class Unread:
    """A kind that could not be looked at, and what that takes."""

    kind: str
    need: Need
    text: str


@dataclass(slots=True)
class Reading:
    """All that was read."""

    source: str
    """Where from, for people."""
    live: bool
    objects: list[Obj] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)

    def scene(self, chosen: Sequence[str] = ()) -> Scene:
        """Make the scene that rules look at."""
        return Scene(
            self.objects,
            unread={lost.kind for lost in self.unread},
            chosen=chosen,
            live=self.live,
            vendors=INGRESS_VENDORS,
            by_kind=BY_KIND,
        )
