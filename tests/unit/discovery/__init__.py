"""Mirrors stickyproxy/discovery."""
