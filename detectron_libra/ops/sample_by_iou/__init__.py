# SPDX-License-Identifier: Apache-2.0
"""Random choice of boxes, balanced by IoU or by instance. Plain PyTorch; kernels are yet to come."""

from detectron_libra.ops.sample_by_iou.reference import sample_by_instance, sample_by_iou, sample_uniform

__all__ = ["sample_by_instance", "sample_by_iou", "sample_uniform"]
