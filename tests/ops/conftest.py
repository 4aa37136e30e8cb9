# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every operator's tests share, and how property tests choose their examples."""

import os

from hypothesis import HealthCheck, settings

from tests.ops.harness import device, each_backend  # noqa: F401

# The same examples every time: a test that fails once in a while is no help to who changes something else.
settings.register_profile(
    "ops",
    max_examples=int(os.environ.get("LIBRA_EXAMPLES", "40")),  # few under a slow sanitizer
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("ops")
