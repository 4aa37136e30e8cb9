# SPDX-License-Identifier: Apache-2.0
"""The parts of a detector. Those of Libra R-CNN for people who keep their own pipeline:"""

from detectron_libra.modeling.losses import BalancedL1Loss
from detectron_libra.modeling.necks.balanced_pyramid import BalancedFeaturePyramid

__all__ = ["BalancedFeaturePyramid", "BalancedL1Loss"]
