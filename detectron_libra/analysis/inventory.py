# SPDX-License-Identifier: Apache-2.0
"""All boxes of some data sets in a few arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from detectron_libra.data.coco import Dataset
from detectron_libra.data.transforms import resized
from detectron_libra.ops.match_boxes import pairwise_iou

#: COCO's sizes: name -> smallest and largest area in square pixels of the original image.
AREAS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, float("inf"))}
#: What images without a ``source`` are listed under, where others have one.
NO_SOURCE = "(not stated)"


@dataclass(frozen=True)
class Inventory:
    """M boxes of N images; crowds are counted apart and are no boxes here.

    Attributes:
        class_names: class c is ``class_names[c - 1]``; no two are the same.
        extent: pixels added to x2 - x1 to get a width.
        names: N, "data set: image id".
        sources: (N,) text, where each image comes from.
        sizes: (N, 2) int64, height and width of the original, pixels.
        scales: (N,) float64, size as the network sees it / original size.
        crowds: (N,) int64, regions of many objects in each image.
        image: (M,) int64, position of the image of each box.
        boxes: (M, 4) float32, x1 y1 x2 y2 in pixels of the original.
        classes: (M,) int64, 1..C-1.
    """

    class_names: tuple[str, ...]
    extent: float
    names: list[str]
    sources: np.ndarray
    sizes: np.ndarray
    scales: np.ndarray
    crowds: np.ndarray
    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray

    @property
    def sides(self) -> np.ndarray:
        """(M, 2) float64, width and height of each box in pixels of the original."""
        return self.boxes[:, 2:].astype(np.float64) - self.boxes[:, :2] + self.extent

    @property
    def areas(self) -> np.ndarray:
        """(M,) float64, square pixels of the original."""
        return self.sides.prod(1)

    @property
    def per_image(self) -> np.ndarray:
        """(N,) int64, boxes of each image."""
        return np.bincount(self.image, minlength=len(self.names))

    @cached_property
    def neighbour_overlap(self) -> np.ndarray:
        """(M,) float32, largest IoU of each box with another one of its image, whatever their classes."""
        found = np.zeros(len(self.boxes), dtype=np.float32)
        order = np.argsort(self.image, kind="stable")
        for rows in np.split(order, np.cumsum(self.per_image)[:-1]):
            if len(rows) > 1:
                boxes = torch.from_numpy(self.boxes[rows])
                iou = pairwise_iou(boxes, boxes, extent=self.extent)
                found[rows] = iou.fill_diagonal_(0).amax(1).numpy()
        return found

    def of_size(self, name: str) -> np.ndarray:
        """(M,) bool, boxes of a size of AREAS."""
        low, high = AREAS[name]
        return (self.areas >= low) & (self.areas < high)

    def of_images(self, chosen: np.ndarray) -> Inventory:
        """The images that ``chosen`` (N,) bool names, with their boxes."""
        place = np.cumsum(chosen) - 1
        kept = chosen[self.image]
        return replace(
            self,
            names=[name for name, taken in zip(self.names, chosen, strict=True) if taken],
            sources=self.sources[chosen],
            sizes=self.sizes[chosen],
            scales=self.scales[chosen],
            crowds=self.crowds[chosen],
            image=place[self.image[kept]],
            boxes=self.boxes[kept],
            classes=self.classes[kept],
        )

    def by_source(self) -> dict[str, Inventory]:
        """One inventory for each source, sorted by name; none where no image states one."""
        if not any(self.sources):
            return {}
        labels = np.where(self.sources == "", NO_SOURCE, self.sources)
        return {str(name): self.of_images(labels == name) for name in sorted(set(labels))}


def told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """Names of classes; those that several of them have get their number."""
    return tuple(f"{name} ({c})" if names.count(name) > 1 else name for c, name in enumerate(names, 1))


def take_inventory(datasets: Sequence[Dataset], *, extent: float, side: int, max_size: int) -> Inventory:
    """The boxes of data sets with the same classes.

    Args:
        extent: of the geometry.
        side, max_size: how the network's images are resized, see ``data.transforms.resized``; pixels.
    """
    names, sources, sizes, scales, crowds, image, boxes, classes = ([] for _ in range(8))
    for dataset in datasets:
        for record in dataset.records:
            single = ~record.crowd
            image.append(np.full(int(single.sum()), len(names)))
            boxes.append(record.boxes[single].numpy())
            classes.append(record.classes[single].numpy())
            names.append(f"{dataset.name}: {record.image_id}")
            sources.append(record.source)
            sizes.append((record.height, record.width))
            scales.append(resized(record.height, record.width, side=side, max_size=max_size)[0])
            crowds.append(int(record.crowd.sum()))
    return Inventory(
        told_apart(datasets[0].class_names),
        extent,
        names,
        np.array(sources, dtype=object),
        np.array(sizes, dtype=np.int64).reshape(-1, 2),
        np.array(scales, dtype=np.float64),
        np.array(crowds, dtype=np.int64),
        np.concatenate([np.zeros(0, dtype=np.int64), *image]),
        np.concatenate([np.zeros((0, 4), dtype=np.float32), *boxes]),
        np.concatenate([np.zeros(0, dtype=np.int64), *classes]),
    )
