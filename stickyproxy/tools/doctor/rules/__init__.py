"""All rules, as data: each has an id, a severity, an anchor in docs/doctor.md, and a check of its own."""

from stickyproxy.tools.doctor.findings import Rule
from stickyproxy.tools.doctor.rules import (
    affinity,
    ending,
    network,
    probes,
    proxy,
    scaling,
    storage,
    timeouts,
    versions,
)

RULES: tuple[Rule, ...] = (
    *affinity.RULES,
    *timeouts.RULES,
    *probes.RULES,
    *ending.RULES,
    *scaling.RULES,
    *storage.RULES,
    *proxy.RULES,
    *network.RULES,
    *versions.RULES,
)
