"""Mirrors stickyproxy/dataplane, without sockets."""
