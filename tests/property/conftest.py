"""How long hypothesis searches: the same examples on every run in CI, new ones on every run elsewhere."""

import os

from hypothesis import HealthCheck, settings
from needs import on_ci

settings.register_profile(
    "here",
    max_examples=200,
    deadline=None,
    database=None,
    # Many drawn heads are refused, which is what they are for; a busy machine is no fault of ours.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.register_profile("ci", settings.get_profile("here"), derandomize=True)
settings.register_profile("long", settings.get_profile("here"), max_examples=20_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if on_ci() else "here"))
