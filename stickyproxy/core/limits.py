"""The limits a client or a backend can run into, by the names under which they are counted."""

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
