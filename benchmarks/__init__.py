"""Measure stickyproxy beside other proxies on the machine at hand: ``python -m benchmarks``."""
