"""A long run of everything at once, which fails on growth and on what is left behind: ``python -m benchmarks.soak``."""
