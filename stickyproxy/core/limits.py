"""The limits a client or a backend can run into: the names under which they are counted, and a rule."""

from enum import StrEnum


class Limit(StrEnum):
    """One limit; the value is its label in `stickyproxy_limits_hit_total`."""

    CONNECTIONS = "connections"
    """All places are taken: accepting has paused."""
    CLIENT_CONNECTIONS = "client-connections"
    """One address has as many connections as it may: one more was closed."""
    DESCRIPTORS = "descriptors"
    """The process may open no more files: accepting has paused."""
    IDLE_CLOSED = "idle-closed"
    """A connection without a request was closed to make a place for another."""
    BUFFERED = "buffered"
    """Too many bytes waited for slow peers: the connection that had been slow for longest was dropped."""
    RATE = "rate"
    """A body came, or was taken, too slowly; the connection was given up."""
    REQUESTS = "requests"
    """A connection has carried as many requests as it may: it ends with the answer."""
    PENDING = "pending"
    """As many requests as may be wait for a backend's answer: one more was sent elsewhere, or answered here."""


def moves(before: int, now: int, most: int) -> bool:
    """Say whether a peer takes bytes fast enough, of which so many were waiting for it before and are now.

    most: as many as it must take at least, or all that there were.
    """
    return before - now >= min(most, before) > 0
