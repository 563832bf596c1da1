"""pytest plugin for mutmut, which runs the same test functions many times in one process."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "mutation",
    deadline=None,
    derandomize=True,  # a mutant must not survive or die by chance
    database=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
)
