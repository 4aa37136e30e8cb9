# SPDX-License-Identifier: Apache-2.0
"""What the pixels were that a backbone was trained on, as configuration keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Preprocessing:
    """Order of the channels; means and standard deviations of 0..255 in this order."""

    order: str
    means: tuple[float, ...]
    stds: tuple[float, ...]

    def settings(self) -> dict[str, object]:
        """Configuration keys."""
        return {
            "PIXEL_ORDER": self.order,
            "PIXEL_MEANS": list(self.means),
            "PIXEL_STDS": list(self.stds),
        }


#: torchvision's 0.485, 0.456, 0.406 and 0.229, 0.224, 0.225 of 255, as mmdetection and detectron2 write them.
IMAGENET_RGB = Preprocessing("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
#: Weights that come from Caffe2; detectron2's means, which are torchvision's in the other order.
CAFFE = Preprocessing("BGR", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
#: ResNeXt weights that come from Caffe2.
CAFFE_RESNEXT = Preprocessing("BGR", (103.53, 116.28, 123.675), (57.375, 57.12, 58.395))


def statistics_are_empty(tensors: Mapping[str, Tensor]) -> bool:
    """Whether there is no mean but 0: the backbone comes from Caffe2, whose weights hold scale and shift alone."""
    return not any(bool(t.any()) for name, t in tensors.items() if name.endswith("running_mean"))


def strides_in_1x1(tensors: Mapping[str, Tensor], *, grouped: bool) -> bool:
    """Whether bottlenecks stride in their first 1x1 convolution: ResNets of Caffe2 do, ResNeXts and all others not."""
    return statistics_are_empty(tensors) and not grouped


def of_backbone(tensors: Mapping[str, Tensor], *, grouped: bool) -> Preprocessing:
    """What the weights of a backbone want, by whether they come from Caffe2."""
    if not statistics_are_empty(tensors):
        return IMAGENET_RGB
    return CAFFE_RESNEXT if grouped else CAFFE


def for_backbone_alone(network: Mapping[str, object], tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """Keys that weights of a backbone alone need: pixels, and of the network what is not in MODEL.CONV_BODY's name.

    Args:
        network: what ``backbone_settings`` told.
        tensors: as they were in the file.
    """
    groups, width = (network.get(f"RESNETS.{key}") for key in ("NUM_GROUPS", "WIDTH_PER_GROUP"))
    grouped = groups not in (None, 1)
    settings = of_backbone(tensors, grouped=grouped).settings()
    if groups is not None:
        settings["RESNETS.STRIDE_1X1"] = strides_in_1x1(tensors, grouped=grouped)
    if (groups, width) not in ((None, None), (1, 64)):
        settings |= {"RESNETS.NUM_GROUPS": groups, "RESNETS.WIDTH_PER_GROUP": width}
    return settings
