"""Tests that mirror stickyproxy/discovery, one file per module."""
