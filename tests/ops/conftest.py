# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every operator's tests share."""

from tests.ops.harness import device, each_backend  # noqa: F401
