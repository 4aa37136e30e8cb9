# SPDX-License-Identifier: Apache-2.0
"""Backbones: image to features of several strides."""

from detectron_libra.modeling.backbones.resnet import ARCHITECTURES, ResNet

__all__ = ["ARCHITECTURES", "ResNet"]
