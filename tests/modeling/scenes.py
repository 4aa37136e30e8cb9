# SPDX-License-Identifier: Apache-2.0
"""Small batches and targets for tests of heads, losses and detectors."""

import torch

from detectron_libra.structures import Batch, ImageMeta, Proposals, Targets


def targets(*images):
    """Targets of images that are each a list of (x1, y1, x2, y2, class[, crowd]), padded to the longest."""
    most = max((len(image) for image in images), default=0)
    boxes = torch.zeros(len(images), most, 4)
    classes = torch.zeros(len(images), most, dtype=torch.int64)
    crowd = torch.zeros(len(images), most, dtype=torch.bool)
    for n, image in enumerate(images):
        for g, (x1, y1, x2, y2, label, *is_crowd) in enumerate(image):
            boxes[n, g] = torch.tensor([x1, y1, x2, y2], dtype=torch.float32)
            classes[n, g], crowd[n, g] = label, bool(is_crowd and is_crowd[0])
    return Targets(boxes, classes, crowd)


def stored_proposals(sizes, count=40, seed=0):
    """Random boxes inside images of (height, width); the last row of the first image is padding."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(len(sizes), count, 2, 2, generator=generator).sort(2).values
    limits = torch.tensor(sizes, dtype=torch.float32).flip(1)[:, None, None] - 1
    valid = torch.ones(len(sizes), count, dtype=torch.bool)
    valid[0, -1] = False
    return Proposals((corners * limits).flatten(2), torch.rand(len(sizes), count, generator=generator), valid)


def batch(sizes, found=None, *, scales=None, seed=0, multiple=64):
    """A batch of noise images of (height, width), padded to a multiple; original sizes are size / scale.

    It has proposals too, which Fast R-CNN reads and no other detector."""
    scales = scales or [1.0] * len(sizes)
    height, width = (-(-max(s) // multiple) * multiple for s in zip(*sizes, strict=True))
    images = torch.zeros(len(sizes), 3, height, width, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(seed)
    metas = []
    for n, ((h, w), scale) in enumerate(zip(sizes, scales, strict=True)):
        images[n, :, :h, :w] = torch.randint(256, (3, h, w), generator=generator, dtype=torch.uint8)
        metas.append(ImageMeta(n, f"{n}.jpg", round(h / scale), round(w / scale), scale))
    proposals = stored_proposals(sizes, seed=seed)
    return Batch(images, torch.tensor(sizes), found, tuple(metas), proposals=proposals)
