"""Mirrors stickyproxy/tools."""
