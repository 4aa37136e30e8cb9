# SPDX-License-Identifier: Apache-2.0
"""Small batches and targets for tests of heads, losses and detectors."""

import torch

from detectron_libra.structures import Batch, ImageMeta, Targets


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


def batch(sizes, found=None, *, scales=None, seed=0, multiple=64):
    """A batch of noise images of (height, width), padded to a multiple; original sizes are size / scale."""
    scales = scales or [1.0] * len(sizes)
    height, width = (-(-max(s) // multiple) * multiple for s in zip(*sizes, strict=True))
    images = torch.zeros(len(sizes), 3, height, width, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(seed)
    metas = []
    for n, ((h, w), scale) in enumerate(zip(sizes, scales, strict=True)):
        images[n, :, :h, :w] = torch.randint(256, (3, h, w), generator=generator, dtype=torch.uint8)
        metas.append(ImageMeta(n, f"{n}.jpg", round(h / scale), round(w / scale), scale))
    return Batch(images, torch.tensor(sizes), found, tuple(metas))
