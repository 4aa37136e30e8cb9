# SPDX-License-Identifier: Apache-2.0
"""One image from its file to tensors, and several of them to a padded batch. Nothing random."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from detectron_libra.data import transforms
from detectron_libra.data.coco import Record
from detectron_libra.data.images import read_image
from detectron_libra.data.jpeg import PILLOW
from detectron_libra.data.plan import Sample
from detectron_libra.structures import Batch, ImageMeta, Proposals, Targets, stretched_width


@dataclass(frozen=True)
class Preparation:
    """How images are changed, the same for the whole run.

    Attributes:
        max_size: most pixels of the long side.
        stride: padded sides are multiples of it, in pixels; 0 pads to the largest image only.
        extent, resize_in_float: of the geometry.
        draft: decode large JPEGs at a fraction (images.read_image).
        reader: what decodes JPEGs (jpeg.READERS).
        checked: every image was decoded before, by the check of the data sets.
        with_targets: hand out ground truth.
        dedup: stored proposals that are equal once they are multiplied by it and rounded become one; 0: all stay.
    """

    max_size: int
    stride: int
    extent: float
    resize_in_float: bool
    draft: bool
    with_targets: bool
    dedup: float = 0.0
    reader: str = PILLOW
    checked: bool = False


@dataclass(frozen=True)
class Prepared:
    """One image ready for a batch: (3, H, W) pixels, boxes (G, 4) in them, classes and crowd (G,).

    ``proposals``: (P, 5) stored boxes in the same pixels with their scores, or None.
    """

    image: Tensor
    boxes: Tensor
    classes: Tensor
    crowd: Tensor
    meta: ImageMeta
    proposals: Tensor | None = None


def prepare(
    record: Record, sample: Sample, how: Preparation, read: Callable[..., Tensor] = read_image
) -> Prepared:
    """Read one image and change it as ``sample`` says.

    Args:
        read: called as images.read_image is.

    Raises:
        InputError: the file is unreadable, or of another size than the record says.
    """
    _, height, width = _resized(record, sample, how)
    draft_size = (height, width) if how.draft else None
    size = record.height, record.width
    image = read(record.file, draft_size=draft_size, size=size, reader=how.reader, checked=how.checked)
    return arrange(image, record, sample, how)


def arrange(image: Tensor, record: Record, sample: Sample, how: Preparation) -> Prepared:
    """Stretch, flip and resize an image that was read, and its boxes with it. Pixels are resampled once.

    Args:
        image: (3, H, W) uint8 RGB; may be smaller than the record says where it was decoded at a fraction.
    """
    scale, height, width = _resized(record, sample, how)
    flips = {"flip_x": sample.flip_x, "flip_y": sample.flip_y}
    meta = ImageMeta(
        record.image_id, record.file, record.height, record.width, scale, **flips, stretch=sample.stretch
    )
    image = transforms.flip_image(image, **flips)
    shown_height, shown_width = meta.shown_size
    steps = (scale * shown_height / image.shape[1], scale * shown_width / image.shape[2])
    image = transforms.resize(image, (height, width), scale=steps, in_float=how.resize_in_float)
    boxes = meta.to_shown(record.boxes, extent=how.extent) * scale
    proposals = None
    if record.proposals is not None:
        stored = meta.to_shown(record.proposals[:, :4], extent=how.extent) * scale
        proposals = torch.cat([merge_duplicates(stored, how.dedup), record.proposals[:, 4:]], 1)
    return Prepared(image, boxes, record.classes, record.crowd, meta, proposals)


def merge_duplicates(boxes: Tensor, factor: float) -> Tensor:
    """Boxes (P, 4), each replaced by the first of those that it equals once multiplied by ``factor`` and rounded.

    Detectron computes such boxes once, in pixels of the resized image. The number of rows stays, so that views of
    an image can be averaged.

    Source: Detectron's core/test.py (DEDUP_BOXES).
    """
    if factor <= 0 or not len(boxes):
        return boxes
    rounded = (boxes * factor).round().numpy()
    _, first, place = np.unique(rounded, axis=0, return_index=True, return_inverse=True)
    return boxes[torch.from_numpy(first[place.reshape(-1)])]


def _resized(record: Record, sample: Sample, how: Preparation) -> tuple[float, int, int]:
    """Scale, height and width of an image, see ``transforms.resized``."""
    return transforms.resized(
        record.height,
        stretched_width(record.width, sample.stretch),
        side=sample.side,
        max_size=how.max_size if sample.max_size is None else sample.max_size,
    )


def collate(items: Sequence[Prepared], *, stride: int, with_targets: bool) -> Batch:
    """Pad images and boxes to one size.

    Args:
        items: N images.
        stride: padded sides are multiples of it, in pixels; 0 does not round.
        with_targets: hand out ground truth, with at least one row.

    Returns:
        Batch.
    """
    sizes = torch.tensor([item.image.shape[1:] for item in items])
    step = stride or 1
    height, width = ((sizes.amax(0) + step - 1) // step * step).tolist()
    images = _zeros((len(items), 3, height, width), items[0].image.dtype)
    for row, item in zip(images, items, strict=True):
        row[:, : item.image.shape[1], : item.image.shape[2]] = item.image
    targets = _targets(items) if with_targets else None
    metas = tuple(item.meta for item in items)
    return Batch(images, sizes, targets, metas, proposals=_proposals(items))


def _zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros, in a worker process in the memory that the main process will read.

    Source: torch's default_collate; a batch in memory of the worker's own would be copied on its way.
    """
    if get_worker_info() is None:
        return torch.zeros(shape, dtype=dtype)
    storage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)  # a new file: all zero
    return torch.empty(0, dtype=dtype).set_(storage).view(shape)


def _targets(items: Sequence[Prepared]) -> Targets:
    most = max(1, *(len(item.boxes) for item in items))  # a row of padding spares everyone the case of none
    boxes = torch.zeros(len(items), most, 4)
    classes = torch.zeros(len(items), most, dtype=torch.int64)
    crowd = torch.zeros(len(items), most, dtype=torch.bool)
    for n, item in enumerate(items):
        count = len(item.boxes)
        boxes[n, :count], classes[n, :count], crowd[n, :count] = item.boxes, item.classes, item.crowd
    return Targets(boxes, classes, crowd)


def _proposals(items: Sequence[Prepared]) -> Proposals | None:
    """Stored proposals, padded as targets are; None where there are none."""
    stored = [item.proposals for item in items if item.proposals is not None]
    if len(stored) < len(items):
        return None
    rows = torch.zeros(len(items), max(1, *map(len, stored)), 5)
    valid = torch.zeros(rows.shape[:2], dtype=torch.bool)
    for n, own in enumerate(stored):
        rows[n, : len(own)], valid[n, : len(own)] = own, True
    return Proposals(rows[..., :4].contiguous(), rows[..., 4].contiguous(), valid)
