# SPDX-License-Identifier: Apache-2.0
"""Necks: from a backbone's features to the levels that heads read."""

from detectron_libra.modeling.necks.balanced_pyramid import BalancedFeaturePyramid
from detectron_libra.modeling.necks.fpn import FPN

__all__ = ["FPN", "BalancedFeaturePyramid"]
