# SPDX-License-Identifier: Apache-2.0
"""What travels between data, model and evaluation. Batches are padded, so that no step depends on a count.

Letters: N images, G ground-truth boxes (padded), P proposals (padded), K detections, H/W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from detectron_libra.geometry import flip_boxes


def stretched_width(width: int, stretch: float) -> int:
    """Width in whole pixels, at least 1, of an image that is made wider or narrower by a factor."""
    return max(1, round(width * stretch))


def stretch_boxes(boxes: Tensor, stretch: float) -> Tensor:
    """Boxes (K, 4) of the stretched image. Source: Detectron's utils/boxes.py (aspect_ratio)."""
    return boxes * boxes.new_tensor([stretch, 1.0, stretch, 1.0])


@dataclass(frozen=True)
class Targets:
    """Ground truth of a batch, padded to the largest image.

    Attributes:
        boxes: (N, G, 4) float32, x1 y1 x2 y2 in pixels of the resized image; 0 in padding rows.
        classes: (N, G) int64, 1..C-1 (0 is background); 0 marks a padding row.
        crowd: (N, G) bool, regions of many objects: never positive, never trained as background.
    """

    boxes: Tensor
    classes: Tensor
    crowd: Tensor

    @property
    def valid(self) -> Tensor:
        """(N, G) bool: a real box of one object."""
        return (self.classes > 0) & ~self.crowd

    def to(self, device: torch.device | str) -> Targets:
        """The same targets on ``device``; the copy does not wait when the memory is pinned."""
        moved = (t.to(device, non_blocking=True) for t in (self.boxes, self.classes, self.crowd))
        return Targets(*moved)


@dataclass(frozen=True)
class ImageMeta:
    """Where an image of a batch came from, and how it was changed. Stays on the host.

    Attributes:
        height, width: of the original image, in pixels.
        scale: resized / shown; what is shown is the original, stretched first and mirrored then.
        flip_x, flip_y: mirrored left to right, top to bottom.
        stretch: shown / original width; heights are equal.
    """

    image_id: int | str
    file: str
    height: int
    width: int
    scale: float
    flip_x: bool = False
    flip_y: bool = False
    stretch: float = 1.0

    @property
    def shown_size(self) -> tuple[int, int]:
        """Height and width in pixels after stretching, before scaling."""
        return self.height, stretched_width(self.width, self.stretch)

    def to_shown(self, boxes: Tensor, *, extent: float) -> Tensor:
        """Boxes (K, 4) in pixels of the original, as they lie in the image that is shown, before scaling.

        Args:
            extent: ``Geometry.extent``.
        """
        if self.stretch != 1:
            boxes = stretch_boxes(boxes, self.stretch)
        return flip_boxes(boxes, self.shown_size, extent=extent, flip_x=self.flip_x, flip_y=self.flip_y)

    def to_original(self, boxes: Tensor, *, extent: float) -> Tensor:
        """The inverse of ``to_shown``."""
        boxes = flip_boxes(boxes, self.shown_size, extent=extent, flip_x=self.flip_x, flip_y=self.flip_y)
        return boxes if self.stretch == 1 else stretch_boxes(boxes, 1 / self.stretch)


@dataclass(frozen=True)
class Proposals:
    """Candidate boxes of a batch, padded to a fixed number.

    Attributes:
        boxes: (N, P, 4) float32, x1 y1 x2 y2 in pixels of the resized image.
        scores: (N, P) float32.
        valid: (N, P) bool, False in padding rows.
    """

    boxes: Tensor
    scores: Tensor
    valid: Tensor

    def trimmed(self) -> Proposals:
        """Without the rows behind the last valid one of any image, but with one at least. Waits for the device."""
        places = torch.arange(1, self.valid.shape[1] + 1, device=self.valid.device)
        count = max(1, int((self.valid * places).max())) if self.valid.numel() else 1
        return Proposals(self.boxes[:, :count], self.scores[:, :count], self.valid[:, :count])

    def to(self, device: torch.device | str) -> Proposals:
        """The same proposals on ``device``; the copy does not wait when the memory is pinned."""
        return Proposals(*(t.to(device, non_blocking=True) for t in (self.boxes, self.scores, self.valid)))


@dataclass(frozen=True)
class Batch:
    """Images of one step.

    Attributes:
        images: (N, 3, H, W) uint8 or float32 in 0..255, RGB, padded with 0 at the right and the bottom.
        sizes: (N, 2) int64, height and width of each resized image before padding, in pixels.
        targets: ground truth, or None at test time.
        metas: one per image; ``scale`` is resized / original, ``height`` and ``width`` the original's.
        scales: (N,) float32, those of ``metas``, on the device; made from them where it is not given.
        proposals: stored candidate boxes of a detector that makes none of its own (Fast R-CNN), or None.
    """

    images: Tensor
    sizes: Tensor
    targets: Targets | None
    metas: tuple[ImageMeta, ...]
    scales: Tensor = None  # type: ignore[assignment]
    proposals: Proposals | None = None

    def __post_init__(self) -> None:
        if self.scales is None:
            scales = torch.tensor([meta.scale for meta in self.metas], dtype=torch.float32)
            object.__setattr__(self, "scales", scales.to(self.images.device))

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on ``device``; from page-locked memory the host does not wait."""
        targets = None if self.targets is None else self.targets.to(device)
        proposals = None if self.proposals is None else self.proposals.to(device)
        images, sizes, scales = (
            t.to(device, non_blocking=True) for t in (self.images, self.sizes, self.scales)
        )
        return replace(self, images=images, sizes=sizes, targets=targets, scales=scales, proposals=proposals)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory (called by the loader)."""
        targets = self.targets
        if targets is not None:
            targets = Targets(*(t.pin_memory() for t in (targets.boxes, targets.classes, targets.crowd)))
        proposals = self.proposals
        if proposals is not None:
            proposals = Proposals(
                *(t.pin_memory() for t in (proposals.boxes, proposals.scores, proposals.valid))
            )
        images, sizes, scales = (t.pin_memory() for t in (self.images, self.sizes, self.scales))
        return replace(self, images=images, sizes=sizes, targets=targets, scales=scales, proposals=proposals)


@dataclass(frozen=True)
class Detections:
    """What a detector found in one image, best first.

    Attributes:
        boxes: (K, 4) float32, x1 y1 x2 y2 in pixels of the original image.
        scores: (K,) float32.
        classes: (K,) int64, 1..C-1.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def to(self, device: torch.device | str) -> Detections:
        """The same detections on ``device``."""
        return Detections(self.boxes.to(device), self.scores.to(device), self.classes.to(device))
