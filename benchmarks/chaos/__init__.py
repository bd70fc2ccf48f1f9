"""Chaos runs: rollouts, crashes and flapping readiness under open pages, with figures held against the bar."""
