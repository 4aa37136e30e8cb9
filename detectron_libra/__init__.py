# SPDX-License-Identifier: Apache-2.0
"""Libra R-CNN for RetinaNet and Faster R-CNN, in the shape of Detectron."""

__version__ = "0.1.0"
