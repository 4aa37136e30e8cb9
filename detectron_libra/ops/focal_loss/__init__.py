# SPDX-License-Identifier: Apache-2.0
"""Focal loss on a head's raw output. Plain PyTorch on every device; compiled kernels are yet to come."""

from detectron_libra.ops.focal_loss.reference import focal_loss

__all__ = ["focal_loss"]
