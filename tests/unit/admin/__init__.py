"""Mirrors stickyproxy/core."""
